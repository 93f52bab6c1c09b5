"""The pages of results: their rows, the kept files of each row, and the text made from them."""
