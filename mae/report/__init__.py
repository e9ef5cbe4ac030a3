"""Pictures, the HTML report and the demo."""
