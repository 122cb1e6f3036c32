"use strict";
// Plotly's own buttons reach only the figure that they stand in: this applies the controls and a zoom to all figures.
(() => {
  const { figures, palettes } = JSON.parse(document.getElementById("figures").textContent);
  const root = document.documentElement, form = document.getElementById("controls"), all = (chosen) => [...document.querySelectorAll(chosen)];
  const cards = all(".plot").map((plot, n) => ({ plot, box: plot.closest(".card"), ...figures[n] }));
  const config = { displaylogo: false, responsive: true, doubleClick: false, modeBarButtons: [["toImage", "zoom2d", "pan2d"]] };
  let now, zoomed = null, resets = 0;

  const average = (values, span) => span <= 1 ? values : values.map((value, i) => {
    const near = values.slice(Math.max(0, i - ((span - 1) >> 1)), i + (span >> 1) + 1).filter((other) => other !== null);
    return value === null ? null : near.reduce((sum, other) => sum + other) / near.length;
  });
  const traces = ({ data }) => data.map((trace) => {
    const { level, run, span, ifSmoothed } = trace.meta, color = level ? palettes[now.palette][level] : trace.marker?.color;
    const width = span && now.smooth > 1 ? now.smooth : span;
    return {
      ...trace, y: average(trace.y, width), customdata: trace.customdata && average(trace.customdata, width), line: { ...trace.line, color }, marker: { ...trace.marker, color },
      fillcolor: trace.stackgroup ? color : trace.fillcolor, visible: now.runs.includes(run) && (!level || now.levels.includes(level)) && (!ifSmoothed || now.smooth > 1),
    };
  });
  // One y scale for the runs of a row, from the levels in sight: side by side is for comparing.
  const scale = ({ plot, layout }) => {
    if (!layout.meta.auto) return {};
    const type = layout.meta.log || now.log ? "log" : "linear", peers = cards.filter((peer) => peer.plot.dataset.panel === plot.dataset.panel && !peer.box.hidden);
    const values = peers.flatMap(traces).flatMap(({ visible, yaxis, y }) => (visible && yaxis !== "y2" ? y : [])).filter((value) => value !== null && (type === "linear" || value > 0));
    const [low, high] = values.reduce(([least, most], value) => [Math.min(least, value), Math.max(most, value)], type === "linear" ? [0, 0] : [Infinity, 0]);
    const ends = type === "linear" ? [low, high] : [Math.log10(low), Math.log10(high)], margin = 0.04 * (ends[1] - ends[0]) || 0.5;
    const dtick = type === "linear" ? null : ends[1] - ends[0] > 1.5 ? 1 : "D2";
    return values.length ? { type, dtick, range: [low === 0 ? 0 : ends[0] - margin, ends[1] + margin] } : { type };
  };
  const draw = (card) => {
    const { plot, layout } = card, { xaxis, yaxis, meta } = layout;
    const y = { ...yaxis, ...scale(card), uirevision: [resets, now.log].join() };
    card.stale = false;
    Plotly.react(plot, traces(card), { ...layout, xaxis: { ...xaxis, range: [...((!meta.fixed && zoomed) || meta.x)] }, yaxis: y }, config).then(() => {
      if (plot.dataset.drawn) return;
      plot.dataset.drawn = "yes";
      plot.on("plotly_relayout", (change) => { if ("xaxis.range[0]" in change) zoom([change["xaxis.range[0]"], change["xaxis.range[1]"]]); });
      plot.on("plotly_doubleclick", () => { resets += 1; zoom(null); });
    });
  };
  const zoom = (range) => {
    zoomed = range;
    cards.forEach((card) => { card.stale = true; if (card.visible) draw(card); });
  };
  const refresh = () => {
    const chosen = new FormData(form), [smooth, palette, layout, runs] = [Number(chosen.get("smooth")), chosen.get("palette"), chosen.get("layout"), chosen.getAll("run")];
    now = { smooth, palette, runs, levels: chosen.getAll("level"), log: chosen.has("log") };
    document.getElementById("panels").className = layout === "side" && runs.length > 1 ? "side" : "flow";
    document.getElementById("smooth-out").textContent = smooth > 1 ? smooth : "off";
    all(".sign[data-level]").forEach(({ style, dataset }) => { style.color = palettes[palette][dataset.level]; });
    all("[data-run]").forEach((one) => { one.hidden = (one.dataset.run && !runs.includes(one.dataset.run)) || (one.dataset.layout && one.dataset.layout !== layout); });
    zoom(zoomed);
  };
  form.elements.smooth.addEventListener("input", refresh);
  form.addEventListener("change", ({ target }) => {
    if (["level", "run"].includes(target.name) && !new FormData(form).has(target.name)) target.checked = true; // the last one stays
    refresh();
  });
  root.dataset.theme = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
  document.getElementById("theme").addEventListener("click", () => { root.dataset.theme = root.dataset.theme === "dark" ? "light" : "dark"; });
  refresh();
  cards.forEach((card) => new IntersectionObserver((changes) => {
    card.visible = changes.at(-1).isIntersecting;
    if (card.visible && card.stale) draw(card);
  }, { rootMargin: "600px" }).observe(card.plot));
})();
