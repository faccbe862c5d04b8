"""One script per question; each says what it shows and checks that it does."""
