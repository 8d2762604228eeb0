"""What is given to others: the distributions, the licence, the workflows."""
