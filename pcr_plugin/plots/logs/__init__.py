"""What veRL's loggers write: its file logger, TensorBoard, and the console."""
