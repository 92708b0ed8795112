"""Between places: from containers into regions, from one region into another, every byte checked once on its way."""
