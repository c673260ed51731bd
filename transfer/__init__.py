"""Any checkpoint in, Backbone or another tool's weights out, with a proof that nothing changed on the way."""
