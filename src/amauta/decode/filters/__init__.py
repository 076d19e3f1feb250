"""What changes the distribution that the next token is drawn from."""
