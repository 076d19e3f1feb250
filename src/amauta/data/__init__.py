"""Materials: reading, records, cleaning, the token store, and what training makes of them."""
