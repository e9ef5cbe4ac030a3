"""Where images come from: folders, arrays, bundled data sets, the Hugging Face hub."""
