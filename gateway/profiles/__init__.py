"""Device profiles: what a payload means, said once for all devices of a kind. No I/O, no clock."""
