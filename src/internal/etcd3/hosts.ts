import { InvalidOption, type Naming, show } from "../options.ts"

const invalid = (problem: (name: Naming) => string, cure?: (name: Naming) => string) =>
  new InvalidOption({ module: "Etcd", option: "hosts", problem, cure })

const wrongHost = (host: string, why: string, cure?: (name: Naming) => string) =>
  invalid(
    (name) => `cannot use host ${show(redact(host))} of ${name("hosts")}: ${why}`,
    cure ?? (() => "Write it as \"host:port\" or \"https://host:port\".")
  )

/** Takes out what comes before an "@", which is a name and a password, and what comes after a "?". */
const redact = (host: string): string => {
  const scheme = /^[a-z0-9+.-]+:\/\//i.exec(host)?.[0] ?? ""
  const rest = host.slice(scheme.length)
  const address = rest.slice(rest.lastIndexOf("@") + 1)
  return `${scheme}${address === rest ? "" : "<redacted>@"}${address.replace(/[?#].*$/s, "?<redacted>")}`
}

/**
 * The members' addresses as the client takes them: no trailing slash, which gRPC
 * would take for a path, and always a port, for which gRPC would assume 443.
 */
export const normalize = (hosts: string | ReadonlyArray<string>): ReadonlyArray<string> => {
  const given = listOf(hosts)
  // This check comes first, since any other message may show a part of a password.
  const withUser = given.find((host) => host.includes("@"))
  if (withUser !== undefined) {
    throw wrongHost(
      withUser,
      "it has more than a host and a port",
      (name) => `Pass the name and the password of a user as ${name("username")} and ${name("password")}.`
    )
  }
  const several = given.find((host) => /[,;]|\S\s+\S/.test(host))
  if (several !== undefined) {
    const [first = "", second = "", ...more] = several.split(/[,;\s]+/).filter((host) => host !== "")
    const apart = [show(redact(first)), show(redact(second)), ...more.length === 0 ? [] : ["..."]].join(", ")
    throw invalid(
      (name) => `${name("hosts")} has several hosts in one text, ${show(redact(several))}`,
      (name) => name("hosts") === "hosts" ? `Pass an array: [${apart}].` : "Separate them by commas."
    )
  }
  const list = given.map(normalizeOne)
  if (list.length === 0) {
    throw invalid((name) => `${name("hosts")} is empty`, () => "Name at least one member, such as \"127.0.0.1:2379\".")
  }
  const secure = list.filter((host) => host.startsWith("https://")).length
  if (secure > 0 && secure < list.length) {
    throw invalid(
      (name) => `${name("hosts")} mixes https:// with plain addresses (${list.join(", ")})`,
      () => "Write all of them with the same scheme."
    )
  }
  return list
}

const listOf = (hosts: unknown): ReadonlyArray<string> => {
  const list: ReadonlyArray<unknown> = Array.isArray(hosts) ? hosts : [hosts]
  if (isTexts(list)) return list
  const wrong = list.find((host) => typeof host !== "string")
  throw invalid((name) =>
    `${name("hosts")} must be a host or an array of hosts, such as ["127.0.0.1:2379"], got ${
      Array.isArray(hosts) ? `an array with ${show(wrong)} in it` : show(hosts)
    }`
  )
}

const isTexts = (list: ReadonlyArray<unknown>): list is ReadonlyArray<string> =>
  list.every((host) => typeof host === "string")

const normalizeOne = (input: string): string => {
  const host = input.trim().replace(/\/+$/, "")
  const scheme = /^([a-z0-9+.-]+):\/\//i.exec(host)?.[1]?.toLowerCase()
  if (scheme !== undefined && scheme !== "http" && scheme !== "https") {
    throw wrongHost(input, `the scheme "${scheme}" is none that etcd speaks`)
  }
  const address = scheme === undefined ? host : host.slice(scheme.length + 3)
  if (/[/?#\s]/.test(address)) throw wrongHost(input, "it has more than a host and a port")
  const port = /:(\d+)$/.exec(address)?.[1]
  const name = port === undefined ? address : address.slice(0, -port.length - 1)
  const noPort = port === undefined ? /^(?:[^:]*|\[.*\]):([^:]+)$/.exec(address)?.[1] : undefined
  if (noPort !== undefined) throw wrongHost(input, `its port, ${show(noPort)}, is not a number`)
  if (name.includes(":") && !/^\[.*\]$/.test(name)) {
    throw wrongHost(input, "an IPv6 address needs brackets, as in \"[::1]:2379\"")
  }
  if (name === "") throw wrongHost(input, "it names no host")
  if (port === undefined) throw wrongHost(input, "it has no port (etcd's own is 2379)")
  if (Number(port) < 1 || Number(port) > 65535) throw wrongHost(input, `there is no port ${port}`)
  return scheme === "https" ? `https://${address}` : address
}
