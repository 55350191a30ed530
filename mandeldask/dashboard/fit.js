// What is written on tiles is as large as they allow, and hidden where nobody could read it.
if (plot.properties.inner_height.is_unset) return; // not laid out yet
const [high, wide] = [[plot.inner_height, plot.y_range], [plot.inner_width, plot.x_range]].map(
  ([pixels, range], k) => (pixels * side[k]) / Math.abs(range.end - range.start));
const longest = Math.max(1, ...Array.from(values.data_source.data.text, (text) => text.length));
const size = Math.floor(Math.min(12, high - 4, (wide - 6) / (0.6 * longest)));
values.visible = size >= 8;
if (values.visible) values.glyph.text_font_size = `${size}px`;
