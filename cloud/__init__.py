"""Jobs of OpenI and ModelArts: what comes in, what goes out."""
