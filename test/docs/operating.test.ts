/** The guide, the dashboard and the alert rules speak of the metrics and the alerts that there are. */
import { assert, describe, it } from "@effect/vitest"
import { LockMetrics } from "effect-etcd-lock"
import * as Fs from "node:fs"
import * as Path from "node:path"

const root = Path.resolve(import.meta.dirname, "../..")
const read = (file: string) => Fs.readFileSync(Path.join(root, file), "utf8")
const guide = read("docs/operating.md")
const dashboard = read("examples/grafana/lock-dashboard.json")
const alertRules = read("examples/grafana/lock-alerts.yml")

const metrics = Object.values(LockMetrics).map(({ id }) => id)

/** The names of metrics in a text, without what Prometheus adds to those of histograms. */
const named = (text: string) =>
  new Set(
    [...text.matchAll(/\betcd_lock_\w+/g)].map(([name]) => metrics.includes(name) ? name : name.replace(/_[a-z]+$/, ""))
  )

const alertsIn = (text: string, pattern: RegExp) => [...text.matchAll(pattern)].map(([, name]) => name!)

describe("the guide to operating", () => {
  it("has every metric in its table, and so has the dashboard", () => {
    const [, table = ""] = /^## What to watch\n([^]*?)\n## /m.exec(guide) ?? []
    assert.sameMembers([...named(table)], metrics)
    assert.sameMembers([...named(dashboard)], metrics)
  })

  it("names no others", () => {
    for (const text of [guide, alertRules]) assert.includeMembers(metrics, [...named(text)])
  })

  it("has every alert in its table", () => {
    const alerts = alertsIn(alertRules, /- alert: (\w+)/g)
    assert.isNotEmpty(alerts)
    assert.sameMembers(alertsIn(guide, /^\|[^|]*\| `(\w+)` +\|/gm), alerts)
  })

  it("links to what there is, and so do the README and the changelog", () => {
    const headings = (text: string) =>
      [...text.matchAll(/^#+ (.+)$/gm)].map(([, heading]) =>
        heading!.toLowerCase().replaceAll(/[^\w -]/g, "").replaceAll(" ", "-")
      )
    for (const from of ["README.md", "CHANGELOG.md", "docs/operating.md", "docs/cluster.md"]) {
      const links = [...read(from).matchAll(/\]\((?!https?:)([^)#]*)#?([^)]*)\)/g)]
      assert.isNotEmpty(links)
      for (const [link, file, heading] of links) {
        const target = file === "" ? from : Path.join(Path.dirname(from), file!)
        assert.isTrue(Fs.existsSync(Path.join(root, target)), `${from}: ${link}`)
        if (heading !== "") assert.include(headings(read(target)), heading)
      }
    }
  })
})
