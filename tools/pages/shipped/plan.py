"""The rows of the page of shipped networks: each a network that is trained, and its shipment."""

from collections.abc import Iterator, Sequence

from tools.pages.entries import Entry, Page

PAGE = 'shipped'
SUFFIX = '_shipped'
# The bits are chosen on validation; the values that weights share are then trained further.
FEWEST_BITS = ('--bits=auto', '--tolerance=0.001', '--epochs=5')
# {row: (what a paper reached, its test error in %)}, as it counted bytes.
PAPERS = {
  'lenet300_dc_12x': ('Deep Compression 2015: 40x', 1.58),
  'lenet5_dc_12x': ('Deep Compression 2015: 39x', 0.74),
  'lenet5_sparse_vd': ('MIRACLE 2018: 555x', 0.69),
}


def _shipped(entry: Entry, options: Sequence[str] = FEWEST_BITS) -> Iterator[Entry]:
  """Yields a row that trains a network, and the row that ships it."""
  yield entry
  yield Entry(entry.label + SUFFIX, '', tuple(options), entry.seeds, ships=entry.label)


ENTRIES = (
  *_shipped(Entry('lenet300_dc_12x', 'configs/lenet300_dc.py')),
  *_shipped(Entry('lenet300_gradual_56x', 'configs/lenet300_gradual.py')),
  *_shipped(Entry('lenet5_dc_12x', 'configs/lenet5_dc.py')),
  *_shipped(Entry('lenet5_gradual_108x', 'configs/lenet5_gradual.py')),
  *_shipped(Entry('lenet300_sparse_vd', 'configs/lenet300_sparse_vd.py')),
  *_shipped(Entry('lenet300_bc_gnj', 'configs/lenet300_bc_gnj.py')),
  *_shipped(Entry('lenet5_sparse_vd', 'configs/lenet5_sparse_vd.py', seeds=(0,))),
)
PAGES = {
  PAGE: Page(
    'Networks as files: bytes, milliseconds and accuracy of what is shipped',
    'Each network is trained by the config of its name and then shipped by `python -m '
    'sparsejax.ship`: units that nothing reads are removed, the weights of a layer share 2^bits '
    'values, the fewest bits for which validation accuracy falls by at most 0.1 points, and these '
    'values are trained for five epochs. Bytes are the whole file, with header, biases and '
    'checksums; the ratio is over the dense network at four bytes a number. The test accuracy of a '
    'file is that of the network that was read back from it, measured once. Milliseconds are '
    'medians of rounds in which dense and shipped network take turns, each in its fastest engine; '
    'dense weights are random there. Papers count differently: Deep Compression (Han et al. 2015) '
    'counts weights, their positions and codebooks.',
    ENTRIES,
    lines=40,
    traces='(?!)',  # of no row
  )
}
