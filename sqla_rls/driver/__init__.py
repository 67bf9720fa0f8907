"""Driver connections that send a binding together with BEGIN, one module for each driver."""
