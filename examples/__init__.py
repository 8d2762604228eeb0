"""Small studies whose numbers the docs state; the tests run every one of them."""
