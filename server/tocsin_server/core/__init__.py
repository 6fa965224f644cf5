"""What the server decides, without doing any of it: values, and synchronous steps from one to the next."""
