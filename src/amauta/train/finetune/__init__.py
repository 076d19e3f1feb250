"""Fine-tuning: a pretrained model learns a task and is graded on records that it did not see."""
