"""What workers tell and hear through Redis, and how anybody looks at all of them."""
