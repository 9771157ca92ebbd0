"""What a network costs: by arithmetic, against a device's roofline, and as measured."""
