"""Tables and the plot of a comparison."""

import statistics

PEERS = ("nginx", "haproxy", "envoy", "relay")
TITLES = {"bearward": "bearward", "logging": "with its logs", "nginx": "nginx", "haproxy": "HAProxy", "envoy": "Envoy",
          "relay": "relay"}
COLOURS = {"bearward": "#c2410c", "nginx": "#15803d", "haproxy": "#1d4ed8", "envoy": "#7e22ce"}


def grouped(results):
    groups = {}
    for run in results["runs"]:
        groups.setdefault((run["workers"], run["workload"], run["proxy"]), []).append(run)
    return groups


def middle(runs, key):
    return statistics.median(run[key] for run in runs)


def spread(runs, key, digits=1):
    values = [run[key] for run in runs]
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f}–{max(values):.{digits}f})"


def ratio(ours, theirs):
    """The median of the ratios of each repetition: its runs follow one another, so that what else the machine does meets both."""
    theirs = {run["repetition"]: run["cpu_us"] for run in theirs}
    pairs = [run["cpu_us"] / theirs[run["repetition"]] for run in ours if run["repetition"] in theirs]
    return f"**{statistics.median(pairs):.2f}**" if pairs else ""


def sound(runs):
    return sum(run["bad"] + run["errors"] for run in runs) == 0


def title(name):
    return TITLES.get(name, name)


def ratios(results, workers, names):
    """Ratios of CPU time first, then the times themselves."""
    groups = grouped(results)
    ours = [name for name in names if name not in (*PEERS, "logging")]
    peers = [name for name in names if name in PEERS]
    head = [f"{title(one)} ÷ {title(peer)}" for one in ours for peer in peers] + [f"{title(name)} µs" for name in names]
    lines = ["| | " + " | ".join(head) + " |", "| --- |" + " ---: |" * len(head)]
    for workload in results["workloads"]:
        of = {name: groups.get((workers, workload, name)) for name in names}
        if not any(of.values()):
            continue
        cost = {name: middle(runs, "cpu_us") for name, runs in of.items() if runs and sound(runs)}
        cells = [ratio(of[one], of[peer]) if one in cost and peer in cost else "" for one in ours for peer in peers]
        cells += [f"{cost[name]:.1f}" if name in cost else ("failed" if of[name] else "") for name in names]
        lines.append(f"| {workload} | " + " | ".join(cells) + " |")
    return lines


def details(results, workers, names):
    groups = grouped(results)
    lines = ["| | proxy | CPU µs a request | requests a second | p50 µs | p99 µs | proxy busy | others' CPU | connections opened |"
             " MiB | failed |", "| --- | --- |" + " ---: |" * 9]
    for workload in results["workloads"]:
        for name in names:
            runs = groups.get((workers, workload, name))
            if runs:
                failed = sum(run["bad"] + run["errors"] for run in runs)
                lines.append(
                    f"| {workload} | {title(name)} | {spread(runs, 'cpu_us')} | {spread(runs, 'rate', 0)} | {middle(runs, 'p50'):.0f} | "
                    f"{middle(runs, 'p99'):.0f} | {middle(runs, 'proxy_busy'):.0%} | {max(run['foreign'] for run in runs):.2f} | "
                    f"{max(run['opened'] for run in runs)} | {max(run['peak_mib'] for run in runs):.0f} | {failed} |")
    return lines


def at_rest(results, names):
    idle = results["idle"]
    names = [name for name in names if name in idle["memory"] or any(name in found for found in idle["sparse"].values())]
    lines = ["| | " + " | ".join(title(name) for name in names) + " |", "| --- |" + " ---: |" * len(names)]

    def row(what, of):
        cells = [of(name) for name in names]
        lines.append(f"| {what} | " + " | ".join("" if cell is None else cell for cell in cells) + " |")

    def held(name, key, digits):
        found = idle["memory"].get(name)
        return None if not found else f"{found[key]:.{digits}f}"

    for a_second, found in idle["sparse"].items():
        row(f"median µs added at {a_second} request{'s' if a_second != '1' else ''} a second",
            lambda name: f"{found[name]['added_us']:.0f}" if name in found else None)
    row("MiB at rest", lambda name: held(name, "at_rest_mib", 1))
    row("KiB a kept connection", lambda name: held(name, "kib_a_connection", 1))
    counts = {found["connections"] for found in idle["memory"].values() if found}
    row(f"MiB with {max(counts, default=0):,} idle connections", lambda name: held(name, "with_all_mib", 0))
    row("ms from start to first answer",
        lambda name: f"{idle['start_ms'][name]:.0f}" if idle["start_ms"].get(name) is not None else None)
    return lines


def markdown(results):
    names = list(dict.fromkeys([run["proxy"] for run in results["runs"]] + list(results["idle"].get("memory", {}))))
    here, versions = results["machine"], results["versions"]
    lines = ["# What a request costs", "",
             "CPU time of a whole proxy, user and system, over the requests that it answered: below 1.00 bearward needs less.",
             "Written by `benches/compare/run`; [benches/README.md](../../benches/README.md) says what is measured and how.", ""]
    for workers in sorted({run["workers"] for run in results["runs"]}):
        lines += [f"## {'One worker' if workers == 1 else f'{workers} workers'}", "", *ratios(results, workers, names), ""]
    lines += [f"* **{name}** {text}" for name, text in results["workloads"].items()] + [""]
    if results["idle"]:
        lines += ["## With little to do", "", *at_rest(results, names), ""]
    lines += ["## How it was measured", "",
              f"* {results['date']}, {here['cpu']}, {here['cores']} cores, {here['memory_gib']} GiB, {here['system']}, "
              f"Linux {here['kernel']}",
              "* " + ", ".join(dict.fromkeys(versions.values())),
              f"* `benches/compare/run {results['options']}`: {results['repetitions']} interleaved repetitions of "
              f"{results['seconds']} s, each in a fresh process after a second of warm-up; medians stand above, of ratios that of "
              "each repetition's"]
    if results["verifies"]:
        lines.append("* origins of an unknown authority and of another name refused over HTTPS: "
                     + ", ".join(f"{title(name)} {verdict}" for name, verdict in results["verifies"].items()))
    lines.append("")
    for workers in sorted({run["workers"] for run in results["runs"]}):
        lines += [f"### Every figure, {'one worker' if workers == 1 else f'{workers} workers'}", "", *details(results, workers, names), ""]
    return "\n".join(lines)


def plot(results):
    """Bars of CPU time a request with one worker, a group a workload."""
    groups = grouped(results)
    workers = min((run["workers"] for run in results["runs"]), default=1)
    names = [name for name in COLOURS if any(run["proxy"] == name for run in results["runs"])]
    shown = [workload for workload in results["workloads"] if (workers, workload, "bearward") in groups]
    cost = {(workload, name): middle(groups[workers, workload, name], "cpu_us")
            for workload in shown for name in names if (workers, workload, name) in groups}
    top = max(cost.values(), default=1.0) * 1.08
    bar, gap, left, base, height = 18, 22, 52, 330, 270
    group = bar * len(names) + gap
    width = left + group * len(shown) + 16
    y = lambda value: base - value / top * height
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} 390" font-family="system-ui, sans-serif" font-size="12" '
           'role="img" aria-label="CPU time a request">',
           f'<rect width="{width}" height="390" fill="#ffffff"/>',
           f'<text x="{left}" y="22" font-size="15" font-weight="600" fill="#111827">CPU time a request, µs '
           f'({"one worker" if workers == 1 else f"{workers} workers"}; shorter is better)</text>']
    place = left
    for name in names:
        out.append(f'<rect x="{place}" y="34" width="12" height="12" fill="{COLOURS[name]}"/>'
                   f'<text x="{place + 17}" y="45" fill="#374151">{TITLES[name]}</text>')
        place += 95
    step = next(step for step in (5, 10, 20, 25, 50, 100, 200, 500, 1000) if top / step <= 8 or step == 1000)
    for value in range(0, int(top) + 1, step):
        out.append(f'<line x1="{left}" x2="{width - 8}" y1="{y(value):.1f}" y2="{y(value):.1f}" stroke="#e5e7eb"/>'
                   f'<text x="{left - 8}" y="{y(value) + 4:.1f}" text-anchor="end" fill="#6b7280">{value}</text>')
    for index, workload in enumerate(shown):
        begin = left + gap / 2 + index * group
        for number, name in enumerate(names):
            if (workload, name) in cost:
                value = cost[workload, name]
                x = begin + number * bar
                out.append(f'<rect x="{x}" y="{y(value):.1f}" width="{bar - 2}" height="{base - y(value):.1f}" fill="{COLOURS[name]}">'
                           f'<title>{workload} {TITLES[name]}: {value:.1f} µs</title></rect>'
                           f'<text x="{x + bar / 2 - 1}" y="{y(value) - 3:.1f}" font-size="9" text-anchor="middle" '
                           f'fill="#374151">{value:.0f}</text>')
        out.append(f'<text x="{begin + bar * len(names) / 2}" y="{base + 18}" text-anchor="middle" font-weight="600" '
                   f'fill="#111827">{workload}</text>')
    notes = ["W1 GET 128 B · W2 GET 16 KiB · W3 POST 4 KiB · W4 TLS in · W5 HTTP/2 in · W6 2,000/s · W7 TLS upstream · "
             "W8 TLS upstream, 16 KiB · W9 HTTP/2 upstream",
             f"{results['date']}, {results['machine']['cpu']}, {results['machine']['cores']} cores"]
    for number, note in enumerate(notes):
        out.append(f'<text x="{left}" y="{base + 38 + number * 15}" font-size="10" fill="#6b7280">{note}</text>')
    return "\n".join([*out, "</svg>", ""])
