"""Which class a config asks for."""
