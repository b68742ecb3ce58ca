"use strict";
/* The charts of the page, drawn by ECharts as SVG from the page's own data, in the colours of light, dark or print. */
(function () {
  const data = JSON.parse(document.getElementById("data").textContent);
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const still = window.matchMedia("(prefers-reduced-motion: reduce)");
  const names = data.categories.map(([name]) => name);
  const words = new Map(data.categories);
  const drawn = [];
  let printing = false;

  const thin = "\u202f";
  const count = (n) => Math.round(n).toLocaleString("en-US");
  const percent = (share) => {
    const points = 100 * share;
    const hidden = (points > 0 && points < 0.5) || (points >= 99.5 && points < 100);
    return points.toFixed(hidden ? 1 : 0) + thin + "%";
  };
  const significant = (n) => (n === 0 ? "0" : Math.abs(n) >= 1000 ? count(n) : String(Number(n.toPrecision(3))));
  const scaled = (n) => {
    for (const [size, prefix] of [[1e18, "E"], [1e15, "P"], [1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"]])
      if (n >= size) return significant(n / size) + thin + prefix;
    return significant(n);
  };

  /* A tooltip as DOM nodes: what it says may come from the user's files, so it is never HTML. */
  function tip(title, lines) {
    const box = document.createElement("div");
    const head = document.createElement("div");
    head.style.fontWeight = "600";
    head.textContent = title;
    box.append(head);
    for (const [label, value, colour] of lines) {
      const line = document.createElement("div");
      line.style.cssText = "display:flex;gap:.6em;align-items:baseline;justify-content:space-between";
      const name = document.createElement("span");
      if (colour) {
        const mark = document.createElement("span");
        mark.style.cssText = "display:inline-block;width:.7em;height:.7em;border-radius:2px;margin-right:.5em";
        mark.style.background = colour;
        name.append(mark);
      }
      name.append(label);
      const figure = document.createElement("b");
      figure.textContent = value;
      line.append(name, figure);
      box.append(line);
    }
    return box;
  }

  function look(colour) {
    return {
      textStyle: { fontFamily: "Inter, system-ui, sans-serif", color: colour.ink },
      animation: !still.matches && !printing,
      animationDuration: 400,
      tooltip: {
        confine: true,
        backgroundColor: colour.ground,
        borderColor: colour.edge,
        borderWidth: 1,
        padding: [8, 12],
        textStyle: { color: colour.ink, fontSize: 13, fontFamily: "Inter, system-ui, sans-serif" },
        extraCssText: "box-shadow:0 4px 16px rgba(0,0,0,.14);border-radius:4px",
      },
    };
  }
  const axisText = (colour) => ({ color: colour.soft, fontSize: 12 });
  const shareAxis = (colour) => ({
    type: "value",
    min: 0,
    max: 1,
    interval: 0.25,
    axisLabel: { ...axisText(colour), formatter: (v) => percent(v), alignMinLabel: "left", alignMaxLabel: "right" },
    splitLine: { lineStyle: { color: colour.line } },
    axisLine: { show: false },
    axisTick: { show: false },
  });

  /* Text on a category's colour: whichever of black and white stands out more. */
  function inkOn(hex) {
    const [r, g, b] = [1, 3, 5].map((i) => {
      const c = parseInt(hex.slice(i, i + 2), 16) / 255;
      return c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b > 0.197 ? "#12161c" : "#ffffff";
  }

  /* rows: [{label, counts: {category: n}}], the first on top */
  function stackedBars(rows, colour, narrow) {
    const total = (row) => names.reduce((sum, name) => sum + row.counts[name], 0) || 1;
    return {
      ...look(colour),
      grid: { outerBoundsMode: "none", left: narrow ? 0 : 150, right: 1, top: narrow ? 18 : 4, bottom: 24 },
      xAxis: shareAxis(colour),
      yAxis: {
        type: "category",
        inverse: true,
        data: rows.map((row) => row.label),
        axisLine: { show: false },
        axisTick: { show: false },
        axisLabel: narrow
          ? { color: colour.ink, fontSize: 12, inside: true, align: "left", verticalAlign: "bottom", padding: [0, 0, 17, 0], margin: 0 }
          : { color: colour.ink, fontSize: 13, align: "left", margin: 150, width: 140, overflow: "truncate" },
        z: 10,
      },
      series: names.map((name) => ({
        name: words.get(name),
        type: "bar",
        stack: "all",
        barWidth: narrow ? 22 : 28,
        itemStyle: { color: colour[name], borderColor: name === "Unknown" ? colour.edge : colour.ground, borderWidth: 1 },
        emphasis: { disabled: true },
        label: {
          show: true,
          color: inkOn(colour[name]),
          fontSize: 12,
          formatter: (p) => (p.value >= (narrow ? 0.09 : 0.045) ? count(rows[p.dataIndex].counts[name]) : ""),
        },
        data: rows.map((row) => row.counts[name] / total(row)),
      })),
      tooltip: {
        ...look(colour).tooltip,
        trigger: "axis",
        axisPointer: { type: "none" },
        formatter: (points) => {
          const row = rows[points[0].dataIndex];
          return tip(
            row.label + ", " + count(total(row)) + " facts",
            names.map((name) => [words.get(name), count(row.counts[name]) + " (" + percent(row.counts[name] / total(row)) + ")", colour[name]]),
          );
        },
      },
    };
  }

  // Bands from each category of one state to each of the next, over any number of states.
  function flowPicture(labels, steps, colour, narrow) {
    const sum = (list) => list.reduce((a, b) => a + b, 0);
    const last = steps.length;
    const counts = [steps[0].map(sum), ...steps.map((flow) => names.map((_, column) => sum(flow.map((row) => row[column]))))];
    const all = sum(counts[0]) || 1;
    const rich = { name: { color: colour.ink, fontSize: narrow ? 11 : 13, lineHeight: 16 }, n: { color: colour.soft, fontSize: narrow ? 11 : 13, lineHeight: 16 } };
    // One state in the middle is named above it. Several have no place of their own up there: their uppermost block is.
    const uppermost = counts.map((n) => n.findIndex((one) => one > 0));
    const said = (depth, name, place) => {
      if (depth % last === 0) return "{name|" + words.get(name) + "}\n";
      return last > 2 && place === uppermost[depth] ? "{state|" + labels[depth] + "}\n" : "";
    };
    const node = (depth) => (name, place) => ({
      name: depth + " " + name,
      depth,
      value: counts[depth][place],
      itemStyle: { color: colour[name], borderColor: colour.edge, borderWidth: 1 },
      label: {
        position: depth ? "right" : "left",
        align: depth ? "left" : "right",
        formatter: said(depth, name, place) + "{n|" + count(counts[depth][place]) + "}",
        rich: depth % last ? { state: { ...rich.n, color: colour.ink }, n: { ...rich.n, color: colour.ink } } : rich,
      },
    });
    const links = steps.flatMap((flow, depth) =>
      flow.flatMap((row, i) =>
        row.flatMap((n, j) => (n ? [{
          source: depth + " " + names[i], target: depth + 1 + " " + names[j], value: n, depth, from: names[i], to: names[j],
          lineStyle: { color: i === 3 ? colour.edge : colour[names[i]], opacity: i === 3 ? 0.28 : 0.5, curveness: 0.5 },
        }] : [])),
      ),
    );
    const heading = (text, depth) => ({
      type: "text", top: 3, silent: true, style: { text, fill: colour.soft, font: "500 12px Inter, sans-serif" },
      ...(depth === 0 ? { left: 0 } : depth === last ? { right: 4 } : { left: "center" }),
    });
    const named = labels.map(heading).filter((_, depth) => depth % last === 0 || labels.length === 3);
    return {
      ...look(colour),
      graphic: named,
      series: [{
        type: "sankey",
        left: narrow ? 82 : 120, right: narrow ? 82 : 120, top: 24, bottom: 24,
        nodeWidth: narrow ? 12 : 18, nodeGap: 18, layoutIterations: 0, draggable: false,
        emphasis: { focus: "adjacency", lineStyle: { opacity: 0.85 } },
        data: counts.flatMap((n, depth) => names.map(node(depth)).filter((_, place) => n[place] > 0)),
        links,
      }],
      tooltip: {
        ...look(colour).tooltip,
        formatter: (p) => {
          const [depth, name] = p.dataType === "edge" ? [p.data.depth] : p.name.split(" ");
          const facts = [["Facts", count(p.dataType === "edge" ? p.data.value : p.value) + " (" + percent((p.dataType === "edge" ? p.data.value : p.value) / all) + ")"]];
          return p.dataType === "edge"
            ? tip(words.get(p.data.from) + " → " + words.get(p.data.to) + (last > 1 ? ", " + labels[depth + 1].toLowerCase() : ""), facts)
            : tip(words.get(name) + " " + labels[depth].toLowerCase(), facts);
        },
      },
    };
  }

  // The facts behind a band or a block; the table of facts knows what they were before and after, not in between.
  function selectFlow(p, last) {
    const [depth, name] = p.dataType === "edge" ? [p.data.depth] : [Number(p.name.split(" ")[0]), p.name.split(" ")[1]];
    const wanted = p.dataType === "edge"
      ? [depth === 0 ? "before=" + p.data.from : "", depth + 1 === last ? "after=" + p.data.to : ""]
      : [depth === 0 ? "before=" + name : "", depth === last ? "after=" + name : ""];
    const found = wanted.filter(Boolean);
    if (found.length) location.hash = "#facts?role=target&" + found.join("&");
  }

  const charts = {
    "chart-mastery": {
      rows: () =>
        Object.entries(data.mastery).flatMap(([role, moments]) =>
          ["before", "after"].map((moment) => ({ label: (data.roles[role] || role) + ", " + moment, counts: moments[moment] })),
        ),
      height() { return 34 + 46 * this.rows().length; },
      option(colour, narrow) { return stackedBars(this.rows(), colour, narrow); },
    },

    "chart-states": {
      rows: () => data.mastery_by_state,
      height() { return 34 + 46 * this.rows().length; },
      option(colour, narrow) { return stackedBars(this.rows(), colour, narrow); },
    },

    "chart-flow": {
      height: () => 420,
      option(colour, narrow) { return flowPicture(["Before", "After"], [data.transition.target], colour, narrow); },
      select(p) { selectFlow(p, 1); },
    },

    "chart-stage-flow": {
      height: () => 420,
      option(colour, narrow) {
        const last = data.flow.labels.length - 1;
        const said = data.flow.labels.map((label, place) => (place === 0 ? "Before" : place === last ? "After" : "After " + label));
        return flowPicture(said, data.flow.steps, colour, narrow);
      },
      select(p) { selectFlow(p, data.flow.steps.length); },
    },

    "chart-categories": {
      height: () => 40 + 58 * data.by_category.length,
      option(colour, narrow) {
        const rows = data.by_category;
        const label = (row) => words.get(row.category) + "\n{soft|n = " + count(row.n) + "}";
        return {
          ...look(colour),
          grid: { outerBoundsMode: "none", left: narrow ? 104 : 150, right: 10, top: 4, bottom: 26 },
          xAxis: shareAxis(colour),
          yAxis: {
            type: "category", inverse: true, data: rows.map(label),
            axisLine: { show: false }, axisTick: { show: false },
            axisLabel: { color: colour.ink, fontSize: narrow ? 12 : 13, align: "left", margin: narrow ? 104 : 150, lineHeight: 17, rich: { soft: { color: colour.soft, fontSize: 12, lineHeight: 17 } } },
            splitLine: { show: false },
          },
          series: [
            {
              type: "custom",
              silent: true,
              data: rows.map((row, place) => [place, row.before_accuracy, row.after_accuracy, row.low, row.high]),
              encode: { x: [1, 2, 3, 4], y: 0 },
              renderItem(_, api) {
                const at = (column) => api.coord([api.value(column), api.value(0)]);
                const has = (column) => Number.isFinite(api.value(column));
                const children = [];
                const row = rows[api.value(0)];
                if (has(1) && row.before_accuracy !== null) {
                  const [a, y] = at(1), [b] = at(2);
                  children.push({ type: "line", shape: { x1: a, y1: y, x2: b, y2: y }, style: { stroke: colour.edge, lineWidth: 1.5, lineDash: [2, 3] } });
                }
                if (row.low !== null && row.low !== undefined && has(3) && has(4)) {
                  const [a, y] = at(3), [b] = at(4);
                  children.push({ type: "rect", shape: { x: a, y: y - 4, width: Math.max(2, b - a), height: 8, r: 4 }, style: { fill: colour.accent, opacity: 0.35 } });
                }
                return { type: "group", children };
              },
            },
            {
              type: "scatter", symbolSize: 13, silent: true, z: 3,
              itemStyle: { color: colour.ground, borderColor: colour.edge, borderWidth: 2, opacity: 1 },
              data: rows.map((row, place) => [row.before_accuracy, place]).filter(([x]) => x !== null && x !== undefined),
            },
            {
              type: "scatter", symbolSize: 13, z: 4,
              itemStyle: { color: colour.accent, borderColor: colour.ground, borderWidth: 2, opacity: 1 },
              data: rows.map((row, place) => [row.after_accuracy, place]),
            },
          ],
          tooltip: {
            ...look(colour).tooltip,
            formatter: (p) => {
              const row = rows[p.value[1]];
              const lines = [["After", percent(row.after_accuracy)]];
              if (row.before_accuracy !== null && row.before_accuracy !== undefined) lines.unshift(["Before", percent(row.before_accuracy)]);
              if (row.low !== null && row.low !== undefined) lines.push([percent(data.level) + " interval", percent(row.low) + " to " + percent(row.high)]);
              return tip(words.get(row.category) + " before, n = " + count(row.n), lines);
            },
          },
        };
      },
      select(p) { location.hash = "#facts?role=target&before=" + data.by_category[p.value[1]].category; },
    },

    "chart-curves": {
      developed: () => data.curves.stages.some((stage) => stage.development.length),
      height() { return this.developed() ? 410 : 270; },
      option(colour, narrow) {
        const stages = data.curves.stages;
        const two = this.developed();
        const end = stages[stages.length - 1].end;
        const left = narrow ? 38 : 46;
        const areas = {
          silent: true,
          label: { show: true, position: "insideTop", color: colour.soft, fontSize: 12, distance: 6, formatter: (p) => p.name },
          data: stages.map((stage, place) => [
            { name: stage.name.slice(0, 40), xAxis: stage.start, itemStyle: { color: place % 2 ? "transparent" : colour.raised } },
            { xAxis: stage.end },
          ]),
        };
        const plain = { ...areas, label: { show: false } };
        const x = (grid, labels) => ({
          type: "value", min: 0, max: end, gridIndex: grid,
          axisLabel: { ...axisText(colour), show: labels, formatter: (v) => count(v), hideOverlap: true },
          name: labels ? "optimiser steps" : "", nameLocation: "middle", nameGap: 26, nameTextStyle: axisText(colour),
          splitLine: { show: false }, axisLine: { show: true, lineStyle: { color: colour.edge } }, axisTick: { show: false },
          axisPointer: { show: true, snap: true, label: { show: false }, lineStyle: { color: colour.edge } },
        });
        const y = (grid, name, extra) => ({
          type: "value", gridIndex: grid, name, nameLocation: "end", nameGap: 10, splitNumber: 3,
          nameTextStyle: { color: colour.ink, fontSize: 13, fontWeight: 500, align: "left", padding: [0, 0, 0, -left] },
          splitLine: { lineStyle: { color: colour.line } }, axisLabel: axisText(colour), axisLine: { show: false }, axisTick: { show: false }, ...extra,
        });
        const series = stages.map((stage, place) => ({
          name: "Training loss", type: "line", xAxisIndex: 0, yAxisIndex: 0, showSymbol: stage.points.length < 3, symbolSize: 6,
          data: stage.points, lineStyle: { color: colour.accent, width: 1.75 }, itemStyle: { color: colour.accent },
          markArea: place === 0 ? areas : undefined, emphasis: { disabled: true },
        }));
        if (two) stages.forEach((stage, place) => series.push({
          name: "Development accuracy", type: "line", xAxisIndex: 1, yAxisIndex: 1, symbol: "circle", symbolSize: 7,
          data: stage.development, lineStyle: { color: colour.accent, width: 1.75 }, itemStyle: { color: colour.accent, borderColor: colour.ground, borderWidth: 1.5 },
          markArea: place === 0 ? plain : undefined, emphasis: { disabled: true },
        }));
        return {
          ...look(colour),
          axisPointer: two ? { link: [{ xAxisIndex: "all" }] } : {},
          grid: two
            ? [{ outerBoundsMode: "none", left, right: 12, top: 34, height: 170 }, { outerBoundsMode: "none", left, right: 12, top: 252, height: 112 }]
            : [{ outerBoundsMode: "none", left, right: 12, top: 34, bottom: 44 }],
          xAxis: two ? [x(0, false), x(1, true)] : [x(0, true)],
          yAxis: two
            ? [y(0, "Training loss", { min: 0 }), y(1, "Accuracy on development facts", { min: 0, axisLabel: { ...axisText(colour), formatter: percent } })]
            : [y(0, "Training loss", { min: 0 })],
          series,
          tooltip: {
            ...look(colour).tooltip,
            trigger: "axis",
            formatter: (points) => {
              const lines = points.map((p) => [p.seriesName, p.seriesName === "Training loss" ? significant(p.value[1]) : percent(p.value[1])]);
              return tip("Step " + count(points[0].value[0]), lines);
            },
          },
        };
      },
    },

    "chart-cost": {
      height: () => 30 + 44 * data.cost.rows.length,
      option(colour, narrow) {
        const rows = data.cost.rows;
        return {
          ...look(colour),
          grid: { outerBoundsMode: "none", left: narrow ? 0 : 220, right: 80, top: narrow ? 16 : 4, bottom: 6 },
          xAxis: { type: "value", show: false, min: 0 },
          yAxis: {
            type: "category", inverse: true, data: rows.map((row) => row.label), axisLine: { show: false }, axisTick: { show: false }, z: 10,
            axisLabel: narrow
              ? { color: colour.ink, fontSize: 12, inside: true, align: "left", verticalAlign: "bottom", padding: [0, 0, 12, 0], margin: 0 }
              : { color: colour.ink, fontSize: 13, align: "left", margin: 220, width: 210, overflow: "truncate" },
          },
          series: [{
            type: "bar", barWidth: narrow ? 14 : 18, emphasis: { disabled: true },
            data: rows.map((row) => ({
              value: row.flops,
              itemStyle: row.free ? { color: colour.raised, borderColor: colour.edge, borderWidth: 1, borderType: "dashed" } : { color: colour.accent },
            })),
            label: { show: true, position: "right", color: colour.ink, fontSize: 12, formatter: (p) => scaled(p.value) + "FLOP" },
          }],
          tooltip: {
            ...look(colour).tooltip,
            formatter: (p) => {
              const row = rows[p.dataIndex];
              return tip(row.label, [["FLOP", scaled(row.flops)], ["Tokens", count(row.tokens)], ["Seconds", significant(row.seconds)]]);
            },
          },
        };
      },
    },
  };

  const colours = () => data.colours[dark.matches && !printing ? "dark" : "light"];

  function draw(entry) {
    const narrow = (printing || entry.place.clientWidth) < 560 && !printing;
    entry.place.style.height = entry.chart.height() + "px";
    entry.drawing.resize({ width: printing || undefined, height: entry.chart.height(), silent: true });
    entry.drawing.setOption(entry.chart.option(colours(), narrow), true);
    entry.width = entry.place.clientWidth;
  }

  for (const [id, chart] of Object.entries(charts)) {
    const place = document.getElementById(id);
    if (!place) continue;
    place.style.height = chart.height() + "px";
    const entry = { place, chart, drawing: echarts.init(place, null, { renderer: "svg" }), width: 0 };
    if (chart.select) entry.drawing.on("click", (p) => chart.select(p));
    drawn.push(entry);
    draw(entry);
  }
  const redraw = () => drawn.forEach(draw);

  /* Watching the places rather than the window: a scroll bar that comes or goes also changes their width. */
  new ResizeObserver(() => drawn.forEach((entry) => {
    if (!printing && entry.place.clientWidth && entry.place.clientWidth !== entry.width) draw(entry);
  })).observe(document.querySelector("main"));
  dark.addEventListener("change", redraw);

  /* Paper is light, and about 660 px wide at the size the charts are drawn for. */
  const opened = [];
  window.addEventListener("beforeprint", () => {
    printing = 660;
    redraw();
    document.querySelectorAll("details:not([open])").forEach((part) => { part.open = true; opened.push(part); });
  });
  window.addEventListener("afterprint", () => {
    printing = false;
    redraw();
    opened.splice(0).forEach((part) => { part.open = false; });
  });
  document.documentElement.dataset.charts = String(drawn.length);
})();
