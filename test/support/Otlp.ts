import { Effect, type Scope } from "effect"
import { createServer } from "node:http"
import type { AddressInfo } from "node:net"

/** A span, or a line of a log, as OTLP has it in JSON. */
export interface Telemetry {
  readonly name?: string
  readonly traceId?: string
  readonly status?: { readonly code: number }
  readonly events?: ReadonlyArray<{ readonly name: string }>
  readonly body?: { readonly stringValue: string }
}

/** What a counter or a gauge has counted, or is at. */
export interface Point {
  readonly name: string
  readonly attributes: Readonly<Record<string, string>>
  readonly value: number
}

export interface Collector {
  readonly endpoint: string
  readonly spans: () => ReadonlyArray<Telemetry>
  readonly logs: () => ReadonlyArray<Telemetry>
  readonly metrics: () => ReadonlyArray<Point>
}

/** Starts a server that keeps what programs send to it by OTLP. */
export const collector: Effect.Effect<Collector, never, Scope.Scope> = Effect.gen(function*() {
  const spans: Array<Telemetry> = []
  const logs: Array<Telemetry> = []
  const metrics: Array<Point> = []
  const server = createServer((request, response) => {
    let body = ""
    request.on("data", (chunk) => {
      body += String(chunk)
    })
    request.on("end", () => {
      const { resourceLogs = [], resourceMetrics = [], resourceSpans = [] } = JSON.parse(body)
      for (const { scopeSpans } of resourceSpans) for (const scope of scopeSpans) spans.push(...scope.spans)
      for (const { scopeLogs } of resourceLogs) for (const scope of scopeLogs) logs.push(...scope.logRecords)
      for (const { scopeMetrics } of resourceMetrics) {
        for (const scope of scopeMetrics) metrics.push(...scope.metrics.flatMap(pointsOf))
      }
      response.end("{}")
    })
  })
  yield* Effect.acquireRelease(
    Effect.callback<void>((resume) => void server.listen(0, "127.0.0.1", () => resume(Effect.void))),
    () => Effect.sync(() => server.close())
  )
  const { port } = server.address() as AddressInfo
  return { endpoint: `http://127.0.0.1:${port}`, spans: () => spans, logs: () => logs, metrics: () => metrics }
})

const pointsOf = ({ gauge, name, sum }: any): ReadonlyArray<Point> =>
  ((sum ?? gauge)?.dataPoints ?? []).map(({ asDouble, attributes }: any) => ({
    name,
    attributes: Object.fromEntries(attributes.map(({ key, value }: any) => [key, value.stringValue])),
    value: asDouble
  }))
