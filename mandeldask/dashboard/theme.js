const style = () => getComputedStyle(document.documentElement);
const paint = () => {
  const colour = (name) => style().getPropertyValue(name).trim();
  for (const axis of axes) {
    axis.major_label_text_color = axis.axis_label_text_color = colour("--quiet");
    axis.axis_line_color = axis.major_tick_line_color = colour("--line");
  }
  for (const grid of grids) grid.grid_line_color = colour("--line");
  ground.fill_color = colour("--field");
  ground.hatch_color = colour("--hatch");
  ground.line_color = colour("--line");
};
paint();
window.addEventListener("mandeldask-theme", paint);
