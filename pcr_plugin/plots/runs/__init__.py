"""What a run is: its rule, beta, learning rate, scope, seed; and which runs are repetitions."""
