"""What the hook and the loops add to mmengine's own step; `training`, which builds a whole run, stands above them."""
