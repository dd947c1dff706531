"""The metering core: the work that is done per receipt, a batch at a time.

``interface`` says what there is to do, ``reference`` does it in Python, ``native`` calls the Rust
crate in ``rust/`` that does the same with other means, ``choose`` picks one. They are held equal,
byte for byte, by tests.
"""
