"use strict";
/* The table of facts: unpacks the columns, searches, filters, sorts and pages them. Every text goes in as text. */
(function () {
  const CATEGORIES = JSON.parse(document.getElementById("data").textContent).categories;
  const ROLES = JSON.parse(document.getElementById("data").textContent).roles;
  const $ = (id) => document.getElementById(id);
  const body = document.querySelector("#facts-table tbody");
  const status = $("facts-count");
  const FILTERS = ["search", "verdict", "role", "relation", "before", "after"];
  const view = { sort: null, descending: false, page: 0, size: 25, rows: [] };
  let facts = null;

  async function unpack() {
    const bytes = Uint8Array.from(atob($("facts-data").textContent.trim()), (c) => c.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    return JSON.parse(await new Response(stream).text());
  }

  const text = (column, row) => { const place = facts.columns[column][row]; return place < 0 ? "" : facts.texts[place]; };
  const figure = (column, row) => { const n = facts.columns[column][row]; return n < 0 ? null : n / 1000; };
  const category = (moment, row) => CATEGORIES[facts.columns["category_" + moment][row]];
  const verdict = (row) => facts.verdicts[facts.columns.verdict[row]];
  const count = (n) => n.toLocaleString("en-US");
  const percent = (share) => (share === null ? "not known" : (100 * share).toFixed(share > 0 && share < 0.1 ? 1 : 0) + "\u202f%");
  const fold = (s) => s.normalize("NFKC").toLowerCase();

  /* An element with children: strings become text nodes, never HTML. */
  function make(tag, attributes, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes || {})) if (value !== null) element.setAttribute(name, value);
    element.append(...children.filter((child) => child !== null));
    return element;
  }
  const isolated = (s, fallback) => (s === "" && fallback ? make("span", { class: "soft" }, fallback) : make("bdi", {}, s));

  let haystacks = null;
  function haystack(row) {
    haystacks ??= new Array(facts.n);
    return (haystacks[row] ??= fold(["question", "answer", "answer_before", "answer_after", "subject", "fact_id", "relation"].map((c) => text(c, row)).join("\n")));
  }

  function chosen() {
    const state = {};
    for (const name of FILTERS) state[name] = $("filter-" + name).value;
    return state;
  }

  function matching() {
    const want = chosen();
    const needles = fold(want.search).split(/\s+/).filter(Boolean);
    const place = (names, name) => (name ? names.indexOf(name) : -1);
    const tests = [];
    const only = (column, value) => tests.push((row) => facts.columns[column][row] === value);
    if (want.verdict) only("verdict", place(facts.verdicts, want.verdict));
    for (const column of ["role", "relation"]) if (want[column]) only(column, place(facts.texts, want[column]));
    for (const moment of ["before", "after"])
      if (want[moment]) only("category_" + moment, CATEGORIES.findIndex(([name]) => name === want[moment]));
    if (needles.length) tests.push((row) => needles.every((needle) => haystack(row).includes(needle)));
    const rows = [];
    for (let row = 0; row < facts.n; row++) if (tests.every((test) => test(row))) rows.push(row);
    return rows;
  }

  const collator = new Intl.Collator("en", { numeric: true, sensitivity: "base" });
  function sorted(rows) {
    if (!view.sort) return rows;
    const sign = view.descending ? -1 : 1;
    const texts = ["question", "answer"].includes(view.sort);
    const key = texts ? (row) => text(view.sort, row) : (row) => facts.columns[view.sort][row];
    const second = view.sort.startsWith("p_greedy") ? facts.columns[view.sort.replace("greedy", "sampled")] : null;
    const compare = texts ? (a, b) => collator.compare(a[1], b[1]) : (a, b) => a[1] - b[1] || (second ? second[a[0]] - second[b[0]] : 0);
    return rows.map((row) => [row, key(row)]).sort((a, b) => sign * compare(a, b) || a[0] - b[0]).map(([row]) => row);
  }

  function update(keepPage) {
    view.rows = sorted(matching());
    if (!keepPage) view.page = 0;
    draw();
  }

  function draw() {
    const pages = Math.max(1, Math.ceil(view.rows.length / view.size));
    view.page = Math.min(view.page, pages - 1);
    const from = view.page * view.size;
    const shown = view.rows.slice(from, from + view.size);
    body.replaceChildren(...shown.map(line));
    if (!shown.length) body.append(make("tr", {}, make("td", { colspan: "5", class: "nothing" }, "No fact matches. Clear a filter to see more.")));
    status.textContent = view.rows.length === facts.n ? count(facts.n) + " facts" : count(view.rows.length) + " of " + count(facts.n) + " facts";
    status.dataset.print = shown.length ? "Facts " + count(from + 1) + " to " + count(from + shown.length) + " of " + count(view.rows.length) + "; the file on a screen shows all." : "";
    $("pager").hidden = view.rows.length <= 25;
    $("page-place").textContent = shown.length ? count(from + 1) + " to " + count(from + shown.length) + " of " + count(view.rows.length) : "0";
    $("page-first").disabled = $("page-previous").disabled = view.page === 0;
    $("page-next").disabled = $("page-last").disabled = view.page >= pages - 1;
    for (const head of document.querySelectorAll("#facts-table th[data-sort]"))
      head.setAttribute("aria-sort", head.dataset.sort === view.sort ? (view.descending ? "descending" : "ascending") : "none");
  }

  function mastery(moment, row) {
    const found = category(moment, row);
    if (!found) return null;
    return make("small", {}, make("span", { class: "swatch " + found[0], "aria-hidden": "true" }), found[1]);
  }

  function line(row) {
    const open = make("button", { type: "button", class: "open", "aria-expanded": "false" }, isolated(text("question", row)));
    const fact = make("tr", { class: "fact", "data-row": row },
      make("td", { "data-label": "Fact" }, open, make("small", { class: "under" }, isolated(text("relation", row)), make("span", {}, text("relation", row) ? " · " : "", ROLES[text("role", row)] || text("role", row)))),
      make("td", { "data-label": "Right answer" }, isolated(text("answer", row))),
      make("td", { "data-label": "Before" }, isolated(text("answer_before", row), "no answer"), mastery("before", row)),
      make("td", { "data-label": "After" }, isolated(text("answer_after", row), "no answer"), mastery("after", row)),
      make("td", { "data-label": "Verdict" }, make("a", { class: "verdict " + verdict(row).replaceAll(" ", "-"), href: "#facts?verdict=" + encodeURIComponent(verdict(row)) }, make("span", { class: "mark", "aria-hidden": "true" }), verdict(row))));
    fact.addEventListener("click", (event) => {
      if (event.target.closest("a") || String(window.getSelection())) return;
      toggle(fact, open, row);
    });
    return fact;
  }

  function toggle(fact, open, row) {
    const shut = open.getAttribute("aria-expanded") === "true";
    open.setAttribute("aria-expanded", String(!shut));
    if (shut) fact.nextSibling.remove();
    else fact.after(make("tr", { class: "more" }, make("td", { colspan: "5" }, detail(row))));
  }

  function detail(row) {
    const long = [["Right answer", "answer"], ["Before", "answer_before"], ["After", "answer_after"]].filter(([, column]) => text(column, row).length > 80);
    const pairs = [
      ...long.map(([name, column]) => [name, isolated(text(column, row))]),
      ["Why", isolated(text("evidence", row), "no evidence recorded")],
      ["Subject", isolated(text("subject", row), "none")],
      ["Id", isolated(text("fact_id", row))],
    ];
    if (figure("p_prior", row) !== null) pairs.push(["Guessable", percent(figure("p_prior", row)) + " chance of a right answer when the subject is withheld"]);
    if (facts.columns.gold_in_prompt[row]) pairs.push(["In the prompt", "a worked example has the same answer"]);
    const list = make("dl", {}, ...pairs.flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value)]));
    const measured = [
      ["Prompts answered right", figure("p_greedy_before", row), figure("p_greedy_after", row)],
      ["Chance that a sample is right", figure("p_sampled_before", row), figure("p_sampled_after", row)],
      ["Other wordings known", figure("reworded_known_before", row), figure("reworded_known_after", row)],
    ].filter(([, before, after]) => before !== null || after !== null);
    const numbers = make("table", { class: "numbers" },
      head(["Measure", "Before", "After"], "n"),
      make("tbody", {}, ...measured.map(([name, before, after]) => make("tr", {}, make("th", { scope: "row" }, name), make("td", { class: "n" }, percent(before)), make("td", { class: "n" }, percent(after))))));
    const wordings = facts.wordings[row] || [];
    const t = (place) => (place < 0 ? "" : facts.texts[place]);
    const mark = (right) => (right ? "✓ " : "✗ ");
    const asked = wordings.length
      ? make("div", {}, make("h3", { class: "small" }, "Asked in other words"),
          make("table", { class: "numbers" }, head(["Wording", "Before", "After"], ""),
            make("tbody", {}, ...wordings.map(([question, before, was, after, is]) =>
              make("tr", {}, make("th", { scope: "row" }, isolated(t(question))),
                make("td", {}, said(was), mark(was), isolated(t(before), "no answer")),
                make("td", {}, said(is), mark(is), isolated(t(after), "no answer")))))))
      : null;
    return make("div", { class: "detail" }, make("div", {}, list), make("div", {}, numbers), asked ? make("div", { style: "grid-column:1/-1" }, asked) : null);
  }
  const said = (right) => make("span", { class: "hidden" }, right ? "known: " : "not known: ");
  const head = (labels, kind) => make("thead", {}, make("tr", {}, ...labels.map((label, place) => make("th", { scope: "col", class: place ? kind : "" }, label))));

  /* The address names the filter (#facts?verdict=learned&before=Unknown), so a view can be linked to. */
  function toAddress() {
    const query = new URLSearchParams(Object.entries(chosen()).filter(([, value]) => value));
    const wanted = "#facts" + (query.size ? "?" + query : "");
    if (location.hash !== wanted) history.replaceState(null, "", wanted);
  }
  function fromAddress() {
    if (!location.hash.startsWith("#facts?")) return;
    const query = new URLSearchParams(location.hash.slice("#facts?".length));
    for (const name of FILTERS) {
      const field = $("filter-" + name);
      field.value = query.get(name) || "";
      if (field.selectedIndex === -1) field.value = "";
    }
    update();
    $("facts").scrollIntoView();
  }

  function listen() {
    let waiting = 0;
    const changed = () => { toAddress(); update(); };
    $("filter-search").addEventListener("input", () => { clearTimeout(waiting); waiting = setTimeout(changed, 120); });
    for (const name of FILTERS.slice(1)) $("filter-" + name).addEventListener("change", changed);
    $("filters").addEventListener("submit", (event) => event.preventDefault());
    $("filters").addEventListener("reset", () => setTimeout(changed));
    for (const heading of document.querySelectorAll("#facts-table th[data-sort]"))
      heading.querySelector("button").addEventListener("click", () => {
        const same = view.sort === heading.dataset.sort;
        /* up, down, and back to the ledger's order */
        if (same && view.descending) [view.sort, view.descending] = [null, false];
        else [view.sort, view.descending] = [heading.dataset.sort, same];
        update();
      });
    const turn = (id, to) => $(id).addEventListener("click", () => { view.page = to(view.page); draw(); });
    turn("page-first", () => 0);
    turn("page-previous", (page) => Math.max(0, page - 1));
    turn("page-next", (page) => page + 1);
    turn("page-last", () => Infinity);
    $("page-size").addEventListener("change", () => { view.size = Number($("page-size").value); view.page = 0; draw(); });
    window.addEventListener("hashchange", fromAddress);
  }

  async function start() {
    if (typeof DecompressionStream === "undefined") {
      status.textContent = "This browser is too old to unpack the table; one from 2023 or later can.";
      return;
    }
    facts = await unpack();
    $("filters").reset();
    listen();
    update();
    fromAddress();
    document.documentElement.dataset.facts = String(facts.n);
  }
  start();
})();
