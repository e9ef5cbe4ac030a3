"""What differs between classification and segmentation; the steps themselves stand one room up."""
