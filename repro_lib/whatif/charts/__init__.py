"""Small charts as SVG: bars and lines whose pieces a script can swap."""
