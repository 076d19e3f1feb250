"""What changes weights: parameter groups, AdamW, Muon and schedules."""
