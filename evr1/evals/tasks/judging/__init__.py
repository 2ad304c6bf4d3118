"""What judges are asked about responses, and how their replies are read.

Each prompt is in our own words. What it shows, what it wants and how the reply is read are those of
the kit whose profile asks it; under `evr1` the reply is one JSON object, or it is none.
"""
