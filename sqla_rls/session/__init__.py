"""When a caller is bound: sessions, their transactions, and the connections that they share."""
