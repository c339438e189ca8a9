"""What of a large policy is trained: frozen parts, low-rank updates; and any network as features extractor."""
