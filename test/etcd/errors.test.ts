import { assert, describe, it } from "@effect/vitest"
import { Etcd } from "effect-etcd-lock"
import { castGrpcError } from "etcd3"
import { afterEach, vi } from "vitest"
import { at, isOfMember, toEtcdError } from "../../src/internal/etcd3/errors.ts"
import { aboutCertificates, denied } from "../../src/internal/etcd3/plainer.ts"
import * as Tls from "../support/Tls.ts"

describe("what etcd says", () => {
  const rows: ReadonlyArray<readonly [string, Etcd.EtcdErrorReason, "Refused" | "Unknown"]> = [
    ["8 RESOURCE_EXHAUSTED: etcdserver: mvcc: database space exceeded", "NoSpace", "Unknown"],
    ["8 RESOURCE_EXHAUSTED: etcdserver: too many requests", "TooManyRequests", "Refused"],
    [
      "8 RESOURCE_EXHAUSTED: grpc: received message larger than max (3000000 vs. 2097152)",
      "InvalidArgument",
      "Refused"
    ],
    ["8 RESOURCE_EXHAUSTED: Received message larger than max (5000000 vs 4194304)", "InvalidArgument", "Unknown"],
    [
      "8 RESOURCE_EXHAUSTED: grpc: trying to send message larger than max (5000000 vs. 4194304)",
      "InvalidArgument",
      "Unknown"
    ],
    ["8 RESOURCE_EXHAUSTED: Bandwidth exhausted or memory limit exceeded", "Unavailable", "Unknown"],
    ["14 UNAVAILABLE: etcdserver: no leader", "Unavailable", "Refused"],
    // 3.6 gave some of them another code.
    ...["14 UNAVAILABLE", "9 FAILED_PRECONDITION"].flatMap((code) =>
      ["not leader", "not capable", "unhealthy cluster", "rpc not supported for learner"].map((text) =>
        [`${code}: etcdserver: ${text}`, "Unavailable", "Refused"] as const
      )
    ),
    ["2 UNKNOWN: not a primary lessor", "Unavailable", "Refused"],
    ["14 UNAVAILABLE: etcdserver: leader changed", "Unavailable", "Unknown"],
    ["14 UNAVAILABLE: etcdserver: request timed out, possibly due to connection lost", "Unavailable", "Unknown"],
    ["14 UNAVAILABLE: etcdserver: server stopped", "Unavailable", "Unknown"],
    ["14 UNAVAILABLE: Channel closed before call started", "Unavailable", "Refused"],
    ["14 UNAVAILABLE: Connection dropped", "Unavailable", "Unknown"],
    ["14 UNAVAILABLE: read ECONNRESET", "Unavailable", "Unknown"],
    [
      "14 UNAVAILABLE: No connection established. Last error: Error: connect ECONNREFUSED 10.0.0.1:2379. Resolution note: ",
      "Unavailable",
      "Refused"
    ],
    ["14 UNAVAILABLE: No connection established. Last error: null. Resolution note: ", "Unavailable", "Refused"],
    ["14 UNAVAILABLE: Name resolution failed for target dns:etcd:2379", "Unavailable", "Refused"],
    [
      "14 UNAVAILABLE: No connection established. Last error: Error: self-signed certificate in certificate chain. Resolution note: ",
      "Tls",
      "Refused"
    ],
    [
      "14 UNAVAILABLE: No connection established. Last error: Error: certificate has expired. Resolution note: ",
      "Tls",
      "Refused"
    ],
    [
      "14 UNAVAILABLE: No connection established. Last error: Error: Hostname/IP does not match certificate's altnames: Host: x. is not in the cert's altnames: DNS:y. Resolution note: ",
      "Tls",
      "Refused"
    ],
    [
      "14 UNAVAILABLE: No connection established. Last error: 40:error:0A00010B:SSL routines:ssl3_get_record:wrong version number. Resolution note: ",
      "Tls",
      "Refused"
    ],
    // The connection stood, so the request may have been sent.
    [
      "14 UNAVAILABLE: 40:error:0A00:SSL routines:tls_get_more_records:decryption failed or bad record mac",
      "Unavailable",
      "Unknown"
    ],
    ["4 DEADLINE_EXCEEDED: Deadline exceeded after 1.0s", "Timeout", "Unknown"],
    [
      "4 DEADLINE_EXCEEDED: Deadline exceeded after 0.342s,name resolution: 0.001s,remote_addr=10.0.0.1:2379",
      "Timeout",
      "Unknown"
    ],
    [
      "4 DEADLINE_EXCEEDED: Deadline exceeded after 0.342s,metadata filters: 0.001s,Waiting for LB pick",
      "Timeout",
      "Refused"
    ],
    [
      "4 DEADLINE_EXCEEDED: Deadline exceeded after 0.342s,previous attempts: 1,Waiting for LB pick",
      "Timeout",
      "Unknown"
    ],
    ["1 CANCELLED: Cancelled on client", "Unavailable", "Unknown"],
    ["2 UNKNOWN: context deadline exceeded", "Unavailable", "Unknown"],
    ["13 INTERNAL: Received RST_STREAM with code 2", "Unavailable", "Unknown"],
    ["3 INVALID_ARGUMENT: etcdserver: revision of auth store is old", "Unavailable", "Refused"],
    ["3 INVALID_ARGUMENT: etcdserver: user name is empty", "Unauthenticated", "Refused"],
    [
      "3 INVALID_ARGUMENT: etcdserver: authentication failed, invalid user ID or password",
      "Unauthenticated",
      "Refused"
    ],
    ["3 INVALID_ARGUMENT: etcdserver: too many operations in txn request", "InvalidArgument", "Refused"],
    ["16 UNAUTHENTICATED: etcdserver: invalid auth token", "Unavailable", "Refused"],
    ["16 UNAUTHENTICATED: who are you", "Unauthenticated", "Refused"],
    ["7 PERMISSION_DENIED: etcdserver: permission denied", "PermissionDenied", "Refused"],
    ["5 NOT_FOUND: etcdserver: requested lease not found", "LeaseNotFound", "Refused"],
    ["9 FAILED_PRECONDITION: etcdserver: lease already exists", "LeaseExists", "Refused"],
    ["11 OUT_OF_RANGE: etcdserver: too large lease TTL", "InvalidArgument", "Refused"],
    // as etcd's gRPC proxy passes them on
    ["2 UNKNOWN: etcdserver: key is not provided", "InvalidArgument", "Refused"],
    ["2 UNKNOWN: etcdserver: too many operations in txn request", "InvalidArgument", "Refused"],
    ["2 UNKNOWN: etcdserver: duplicate key given in txn request", "InvalidArgument", "Refused"],
    ["2 UNKNOWN: etcdserver: request is too large", "InvalidArgument", "Refused"],
    ["2 UNKNOWN: etcdserver: mvcc: database space exceeded", "NoSpace", "Unknown"],
    ["2 UNKNOWN: etcdserver: too many requests", "TooManyRequests", "Refused"],
    ["2 UNKNOWN: etcdserver: lease already exists", "LeaseExists", "Refused"],
    ["2 UNKNOWN: etcdserver: too large lease TTL", "InvalidArgument", "Refused"],
    ["2 UNKNOWN: etcdserver: mvcc: required revision has been compacted", "InvalidArgument", "Refused"],
    ["2 UNKNOWN: etcdserver: request timed out", "Unavailable", "Unknown"],
    ["12 UNIMPLEMENTED: unknown service etcdserverpb.KV", "InvalidArgument", "Refused"],
    ["3 INVALID_ARGUMENT: etcdserver: unsupported operations in txn request", "Internal", "Refused"],
    ["3 INVALID_ARGUMENT: sortOrder is not implemented by kine", "Internal", "Refused"],
    ["2 UNKNOWN: lease keep alive is not supported", "Internal", "Refused"],
    ["12 UNIMPLEMENTED: Received HTTP status code 404", "Internal", "Refused"],
    ["7 PERMISSION_DENIED: Received HTTP status code 403", "Internal", "Refused"],
    ["14 UNAVAILABLE: Received HTTP status code 503", "Unavailable", "Unknown"],
    ["13 INTERNAL: Received HTTP status code 500", "Unavailable", "Unknown"],
    [
      "14 UNAVAILABLE: No connection established. Last error: Error: Protocol error. Resolution note: ",
      "Internal",
      "Refused"
    ],
    ["15 DATA_LOSS: etcdserver: corrupt cluster", "Internal", "Unknown"],
    ["something else", "Internal", "Unknown"]
  ]
  it.each(rows)("%s is %s, %s", (said, reason, outcome) => {
    // as streams report it, and as calls do
    for (const cause of [new Error(said), castGrpcError(new Error(said))]) {
      const error = toEtcdError("txn", cause)
      assert.deepStrictEqual([error.reason, error.outcome], [reason, outcome])
      assert.include(error.message, `etcd txn failed (${reason}): `)
      assert.strictEqual(error.cause, cause)
    }
  })
})

describe("what is not etcd", () => {
  const said = (text: string) => at("etcd:2379", toEtcdError("txn", new Error(text))).description

  it("is named, with its host", () => {
    const kine = "this is kine (k3s), not etcd: it has no lease renewal (etcd:2379)"
    assert.strictEqual(said("3 INVALID_ARGUMENT: sortTarget is not implemented by kine"), kine)
    assert.strictEqual(said("2 UNKNOWN: lease revoke is not supported"), kine)
    assert.strictEqual(
      said("12 UNIMPLEMENTED: Received HTTP status code 404"),
      "this is not etcd: it answers with HTTP status 404 (etcd:2379)"
    )
    assert.strictEqual(
      said("14 UNAVAILABLE: No connection established. Last error: Error: Protocol error. Resolution note: "),
      "this is not etcd: it does not speak HTTP/2, as antietcd, for example, does not (etcd:2379)"
    )
  })

  it("makes the next call go to another member", () => {
    for (
      const text of ["12 UNIMPLEMENTED: Received HTTP status code 404", "2 UNKNOWN: lease revoke is not supported"]
    ) {
      assert.isTrue(isOfMember(toEtcdError("txn", new Error(text))))
    }
    assert.isFalse(isOfMember(toEtcdError("txn", new Error("3 INVALID_ARGUMENT: etcdserver: duplicate key given"))))
  })
})

describe("what exceeds a limit of etcd's", () => {
  it.each([
    ["too many operations in txn request", "--max-txn-ops"],
    ["request is too large", "--max-request-bytes"]
  ])("%s: %s", (text, option) => {
    assert.strictEqual(
      toEtcdError("txn", new Error(`3 INVALID_ARGUMENT: etcdserver: ${text}`)).description,
      `etcdserver: ${text}; allow it more by ${option}`
    )
  })
})

describe("https:// for an etcd without TLS", () => {
  const error = toEtcdError(
    "txn",
    new Error(
      "14 UNAVAILABLE: No connection established. Last error: 40:error:0A00010B:SSL routines:ssl3_get_record:wrong version number. Resolution note: "
    )
  )
  const cure = "etcd does not speak TLS here; write the host with http://"

  it("is said, and `tls` only where it is set", () => {
    assert.strictEqual(aboutCertificates(error, undefined).description, cure)
    assert.strictEqual(aboutCertificates(error, {}).description, `${cure} and leave out \`tls\``)
  })
})

describe("what is wrong with a certificate", () => {
  afterEach(() => {
    vi.unstubAllEnvs()
    vi.restoreAllMocks()
  })

  const client = Tls.certificates(Tls.client)
  const expired = Tls.certificates(Tls.expiredClient)
  const alert = (number: number) =>
    `40AD:error:0A00:SSL routines:ssl3_read_bytes:an alert:a.c:918:SSL alert number ${number}`
  const notByCa =
    "etcd's certificate is not signed by an authority in `tls.ca`; set it to the authority that signed that certificate"
  const notOnList =
    "etcd's certificate is not signed by an authority on Node's own list, which is not that of the system; " +
    "set `tls.ca` to the authority that signed it, or add to the list: " +
    "the file of an authority by NODE_EXTRA_CA_CERTS, the system's list by NODE_USE_SYSTEM_CA=1"
  const refused = "etcd refused the client certificate in `tls.cert`"
  const bytes = (text: string | undefined) => text === undefined ? undefined : Buffer.from(text)
  const used = (tls: Etcd.Tls | undefined) => ({ ca: bytes(tls?.ca), cert: bytes(tls?.cert) })
  const rows: ReadonlyArray<readonly [string, Etcd.Tls | undefined, string]> = [
    [
      "Error: unable to verify the first certificate; if the root CA is installed locally, try running Node.js with --use-system-ca",
      client,
      notByCa
    ],
    ["Error: self-signed certificate in certificate chain", client, notByCa],
    ["Error: self-signed certificate", {}, notOnList],
    ["Error: unable to get local issuer certificate", undefined, notOnList],
    ["Error: certificate has expired", client, "etcd's certificate, or that of its authority, has expired; renew it"],
    [
      "Error: certificate is not yet valid",
      client,
      "etcd's certificate, or that of its authority, is not valid yet; check the clocks"
    ],
    [
      "Error: Hostname/IP does not match certificate's altnames: Host: x. is not in the cert's altnames: DNS:y",
      client,
      "etcd's certificate is for another host (Host: x. is not in the cert's altnames: DNS:y); " +
      "use a name in `hosts` that it has"
    ],
    [alert(42), { ca: client.ca }, "etcd wants a client certificate, and got none; set `tls.cert` and `tls.key`"],
    [alert(116), undefined, "etcd wants a client certificate, and got none; set `tls.cert` and `tls.key`"],
    [
      alert(42),
      client,
      `${refused}: use one for clients, signed by an authority that etcd trusts (by --trusted-ca-file); ` +
      "\"CN=Test CA\" signed it"
    ],
    [alert(42), expired, `${refused}: it expired on 2020-02-01T00:00:00.000Z; renew it`],
    [
      alert(42),
      Tls.certificates(Tls.noClient),
      `${refused}: its extended key usage is not for clients; use one with clientAuth`
    ],
    [
      alert(45),
      Tls.certificates(Tls.noClient),
      `${refused}: it is out of date by etcd's clock, but valid from 2020-01-01T00:00:00.000Z ` +
      "until 2120-01-01T00:00:00.000Z; check the clocks"
    ],
    // It is for any use.
    [
      alert(42),
      { ...client, cert: client.ca },
      `${refused}: use one for clients, signed by an authority that etcd trusts (by --trusted-ca-file); "CN=Test CA" signed it`
    ],
    [alert(44), client, `${refused}: it was revoked; use another`],
    [
      alert(45),
      client,
      `${refused}: it is out of date by etcd's clock, but valid from 2020-01-01T00:00:00.000Z ` +
      "until 2120-01-01T00:00:00.000Z; check the clocks"
    ],
    [alert(45), expired, `${refused}: it expired on 2020-02-01T00:00:00.000Z; renew it`],
    [
      alert(48),
      client,
      `${refused}: it is not signed by an authority that etcd trusts (by --trusted-ca-file); "CN=Test CA" signed it`
    ],
    // What is not known is passed on.
    [
      alert(40),
      client,
      `the TLS handshake failed; check the certificate authority and the client certificate (${alert(40)})`
    ],
    [
      alert(80),
      undefined,
      `the TLS handshake failed; check the certificate authority and the client certificate (${alert(80)})`
    ]
  ]
  it.each(rows)("%s", (trouble, tls, said) => {
    vi.stubEnv("GRPC_DEFAULT_SSL_ROOTS_FILE_PATH", undefined)
    const cause = new Error(`14 UNAVAILABLE: No connection established. Last error: ${trouble}. Resolution note: `)
    const error = aboutCertificates(toEtcdError("txn", cause), used(tls))
    assert.deepStrictEqual(
      [error.description, error.reason, error.outcome, error.method, error.cause],
      [said, "Tls", "Refused", "txn", cause]
    )
  })

  it("is that its time has not come, by the clock of this machine", () => {
    vi.spyOn(Date, "now").mockReturnValue(Date.parse("2019-12-31T00:00:00Z"))
    for (const number of [42, 45]) {
      const cause = new Error(
        `14 UNAVAILABLE: No connection established. Last error: ${alert(number)}. Resolution note: `
      )
      assert.strictEqual(
        aboutCertificates(toEtcdError("txn", cause), used(client)).description,
        `${refused}: it is not valid before 2020-01-01T00:00:00.000Z; check the clocks`
      )
    }
  })

  it("is nothing when something else is wrong", () => {
    const error = toEtcdError("txn", new Error("14 UNAVAILABLE: Connection dropped"))
    assert.strictEqual(aboutCertificates(error, used(client)), error)
  })
})

describe("who may not do what", () => {
  const error = toEtcdError("txn", new Error("7 PERMISSION_DENIED: etcdserver: permission denied"))

  it("is said as far as it is known", () => {
    assert.strictEqual(denied(error, undefined, undefined).description, "the user's roles do not allow this")
    assert.strictEqual(denied(error, "ann", undefined).description, "the roles of user \"ann\" do not allow this")
    const twice = Etcd.nested({ then: [Etcd.get("a"), Etcd.nested({ then: [], else: [Etcd.get("a")] })] })
    assert.strictEqual(denied(error, undefined, twice).description, "the user's roles do not allow this on key \"a\"")
    assert.strictEqual(
      denied(error, "ann", Etcd.getPrefix("\0")).description,
      "the roles of user \"ann\" do not allow this on all keys of etcd; name a prefix that they allow, such as \"reports/\""
    )
    const other = toEtcdError("txn", new Error("3 INVALID_ARGUMENT: etcdserver: duplicate key given in txn request"))
    assert.strictEqual(denied(other, "ann", twice), other)
  })
})
