const wrongHost = (host: string, cure: string) =>
  new RangeError(
    `Etcd: cannot use host ${JSON.stringify(host)}: ${cure}. Write it as "host:port" or "https://host:port".`
  )

/**
 * The members' addresses as the client takes them: no trailing slash, which gRPC
 * would take for a path, and always a port, for which gRPC would assume 443.
 */
export const normalize = (hosts: string | ReadonlyArray<string>): ReadonlyArray<string> => {
  const list = (typeof hosts === "string" ? [hosts] : hosts).map(normalizeOne)
  if (list.length === 0) {
    throw new RangeError("Etcd: `hosts` is empty. Name at least one member, such as \"127.0.0.1:2379\".")
  }
  const secure = list.filter((host) => host.startsWith("https://")).length
  if (secure > 0 && secure < list.length) {
    throw new RangeError(
      `Etcd: \`hosts\` mixes https:// with plain addresses (${
        list.join(", ")
      }). Write all of them with the same scheme.`
    )
  }
  return list
}

const normalizeOne = (input: string): string => {
  const host = input.trim().replace(/\/+$/, "")
  const scheme = /^([a-z0-9+.-]+):\/\//i.exec(host)?.[1]?.toLowerCase()
  if (scheme !== undefined && scheme !== "http" && scheme !== "https") {
    throw wrongHost(input, `the scheme "${scheme}" is none that etcd speaks`)
  }
  const address = scheme === undefined ? host : host.slice(scheme.length + 3)
  if (/[/?#@\s]/.test(address)) throw wrongHost(input, "it has more than a host and a port")
  const port = /:(\d+)$/.exec(address)?.[1]
  const name = port === undefined ? address : address.slice(0, -port.length - 1)
  if (name.includes(":") && !/^\[.*\]$/.test(name)) {
    throw wrongHost(input, "an IPv6 address needs brackets, as in \"[::1]:2379\"")
  }
  if (name === "") throw wrongHost(input, "it names no host")
  if (port === undefined) throw wrongHost(input, "it has no port (etcd's own is 2379)")
  if (Number(port) < 1 || Number(port) > 65535) throw wrongHost(input, `there is no port ${port}`)
  return scheme === "https" ? `https://${address}` : address
}
