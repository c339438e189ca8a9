"""Work that several processes share, on one machine or on several with a common folder."""
