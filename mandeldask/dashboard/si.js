const prefixes = [[1e15, "P"], [1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"]];
for (const [factor, prefix] of prefixes)
  if (tick >= factor) return `${Number((tick / factor).toPrecision(3))} ${prefix}`;
return String(Number(tick.toPrecision(3)));
