"""What of the OpenRLHF binding needs neither OpenRLHF nor DeepSpeed."""
