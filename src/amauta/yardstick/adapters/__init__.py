"""Small changes to a model, compared: six ways to learn a task, and what it takes to learn another language."""
