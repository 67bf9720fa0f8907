"""How a binding travels: connections that send it together with BEGIN, one module for each driver."""
