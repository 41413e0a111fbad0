"""WHO the product serves: shops, their people, their platform accounts, and the keys that protect them."""
