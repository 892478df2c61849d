import { assert, describe, it } from "@effect/vitest"
import {
  Cause,
  Config,
  ConfigProvider,
  Context,
  Duration,
  Effect,
  Exit,
  FileSystem,
  Layer,
  PlatformError,
  Redacted
} from "effect"
import { Etcd, Session } from "effect-etcd-lock"
import * as Path from "node:path"
import * as Util from "node:util"
import { fromVariables } from "../support/connect.ts"
import { defectOf } from "../support/exits.ts"
import * as GrpcServer from "../support/GrpcServer.ts"
import { logs } from "../support/logs.ts"
import * as Tls from "../support/Tls.ts"

/** Where each name is a variable of the environment. */
const withVariables = (env: Record<string, string>) =>
  Effect.provideService(ConfigProvider.ConfigProvider, ConfigProvider.fromEnv({ env }))

const configErrorOf = <A, E>(exit: Exit.Exit<A, E>): Config.ConfigError => {
  const error = Exit.isFailure(exit) ? exit.cause.reasons.find(Cause.isFailReason)?.error : undefined
  assert.instanceOf(error, Config.ConfigError, String(exit))
  return error
}

/** All that can be seen of it, by whichever means. */
const shown = (exit: Exit.Exit<unknown, unknown>) =>
  `${Util.inspect(exit, { depth: 10, showHidden: true })} ${String(exit)} ${
    Exit.isFailure(exit) ? Cause.pretty(exit.cause) : ""
  }`

describe("Etcd.layerConfig", () => {
  const build = (options: Config.Wrap<Etcd.Options>, env: Record<string, string>) =>
    Effect.map(Layer.build(Layer.fresh(Etcd.layerConfig(options))), Context.get(Etcd.Etcd)).pipe(withVariables(env))
  const hosts = Config.String("HOST")
  const env = { HOST: "etcd.invalid:2379" }

  it.effect("takes a Config for each option, or for several together", () =>
    Effect.gen(function*() {
      const requestTimeout = Config.Duration("TIMEOUT")
      const whole = Config.all({ hosts, requestTimeout })
      for (const options of [{ hosts, requestTimeout, password: undefined }, whole]) {
        const etcd = yield* build(options, { ...env, TIMEOUT: "7 seconds" })
        assert.strictEqual(Duration.toSeconds(etcd.requestTimeout), 7)
      }
    }))

  it.effect("takes a user, or none, and refuses one half of a user", () =>
    Effect.gen(function*() {
      const orNone = Config.withDefault(undefined)
      const options = {
        hosts,
        username: Config.String("USER").pipe(orNone),
        password: Config.Redacted("PASSWORD").pipe(orNone)
      }
      yield* build(options, env)
      yield* build(options, { ...env, USER: "ann", PASSWORD: "hunter2" })
      const halves = [
        [{ USER: "ann" }, "username is set without password. A user needs both."],
        [{ PASSWORD: "hunter2" }, "password is set without username. A user needs both."]
      ] as const
      for (const [half, says] of halves) {
        const exit = yield* Effect.exit(build(options, { ...env, ...half }))
        assert.include(configErrorOf(exit).message, says)
        assert.notInclude(shown(exit), "hunter2")
      }
    }))

  it.effect("takes effects that read the password and the certificates", () =>
    Effect.gen(function*() {
      const password = Config.map(Config.String("FILE"), (path) => Effect.die(new Error(`${path} was read`)))
      const tls = Config.all({ ca: Config.succeed(Tls.certificates(Tls.client).ca) })
      const user = { username: Config.succeed("ann"), password }
      yield* build({ hosts, ...user, tls }, { ...env, FILE: "/nowhere" })
      yield* build({ hosts, ...user, tls: Config.map(tls, Effect.succeed) }, { ...env, FILE: "/nowhere" })
    }))

  it.effect("names the variable that is missing", () =>
    Effect.gen(function*() {
      const exit = yield* Effect.exit(build({ hosts, requestTimeout: Config.Duration("TIMEOUT") }, env))
      assert.include(configErrorOf(exit).message, "TIMEOUT")
    }))

  it.effect("names the option that can never work, and shows no secret", () =>
    Effect.gen(function*() {
      const cases: ReadonlyArray<readonly [Config.Wrap<Etcd.Options>, Record<string, string>, string]> = [
        [{ hosts }, { HOST: "etcd" }, "cannot use host \"etcd\" of hosts: it has no port"],
        [
          { hosts },
          { HOST: "http://ann:hunter2@etcd:2379" },
          "Pass the name and the password of a user as username and password."
        ],
        [{ hosts, requestTimeout: Config.Duration("T") }, { ...env, T: "0 seconds" }, "requestTimeout must be between"],
        [
          { hosts, username: Config.String("U"), password: Config.Redacted("P") },
          { HOST: "etcd", U: "ann", P: "hunter2" },
          "it has no port"
        ],
        [{ hosts, tls: Config.all({ ca: Config.String("CA") }) }, { ...env, CA: "hunter2" }, "tls.ca is not PEM text"]
      ]
      for (const [options, env, says] of cases) {
        const exit = yield* Effect.exit(build(options, env))
        assert.include(configErrorOf(exit).message, says)
        assert.notInclude(shown(exit), "hunter2")
      }
    }))

  it.effect("dies of what is no Config, without showing it", () =>
    Effect.gen(function*() {
      const untyped = (value: unknown): any => value
      const cases: ReadonlyArray<readonly [unknown, string]> = [
        [undefined, "Etcd.layerConfig: options must be a Config, or an object of Configs, got undefined"],
        ["hunter2", "Etcd.layerConfig: options must be a Config, or an object of Configs, got text"],
        [{ hosts: "hunter2:1" }, "Etcd.layerConfig: hosts must be a Config, or an object of Configs, got text"],
        [{ hosts: ["hunter2:1"] }, "hosts must be a Config, or an object of Configs, got an array"],
        [{ hosts, password: Redacted.make("hunter2") }, "password must be a Config, or"]
      ]
      for (const [options, says] of cases) {
        const exit = yield* Effect.exit(build(untyped(options), env))
        const defect = defectOf(exit)
        assert.instanceOf(defect, RangeError)
        assert.include(defect.message, says)
        assert.include(defect.message, "Write it as Config.String(\"NAME\"), or as Config.succeed(value).")
        assert.notInclude(shown(exit), "hunter2")
      }
    }))
})

describe("Session.layerConfig", () => {
  const ttl = Config.Duration("TTL")
  const build = (options: Config.Wrap<Session.Options>, env: Record<string, string>) =>
    Layer.build(Session.layerConfig(options)).pipe(
      Effect.map(Context.get(Session.Session)),
      Effect.provide(Etcd.layerMemory()),
      withVariables(env)
    )

  it.effect("makes the session that the configuration describes", () =>
    Effect.gen(function*() {
      for (const options of [{ ttl }, Config.all({ ttl })]) {
        const { lease } = yield* build(options, { TTL: "42 seconds" })
        assert.strictEqual(Duration.toSeconds((yield* lease).ttl), 42)
      }
    }))

  it.effect("names the variable that is missing, and the option that can never work", () =>
    Effect.gen(function*() {
      assert.include(configErrorOf(yield* Effect.exit(build({ ttl }, {}))).message, "TTL")
      const exit = yield* Effect.exit(build({ ttl }, { TTL: "0 seconds" }))
      assert.include(configErrorOf(exit).message, "ttl must be")
    }))

  it.effect("dies of what is no Config", () =>
    Effect.gen(function*() {
      const exit = yield* Effect.exit(build({ ttl: "15 seconds" } as any, {}))
      assert.include(
        String(defectOf(exit)),
        "Session.layerConfig: ttl must be a Config, or an object of Configs, got text"
      )
    }))
})

const quote = (text: string) => JSON.stringify(text)

const base64Key = Buffer.from(Redacted.value(Tls.certificates(Tls.client).key)).toString("base64")

/** A file system with these files and no others. */
const filesOf = (files: Record<string, string>) =>
  FileSystem.layerNoop({
    readFileString: (path) =>
      path in files ? Effect.succeed(files[path]!) : Effect.fail(
        PlatformError.systemError({
          _tag: "NotFound",
          module: "FileSystem",
          method: "readFileString",
          pathOrDescriptor: path
        })
      )
  })

describe("Etcd.layerEtcdctl", () => {
  it.effect("reads the files of the file system that it is given", () =>
    Effect.gen(function*() {
      const env = { ETCDCTL_CACERT: "/etcd/ca.pem", ETCDCTL_CERT: "/etcd/cert.pem", ETCDCTL_KEY: "/etcd/key.pem" }
      const { ca, cert, key } = Tls.certificates(Tls.client)
      const files = { "/etcd/ca.pem": ca, "/etcd/cert.pem": cert, "/etcd/key.pem": Redacted.value(key) }
      const build = (files: Record<string, string>) =>
        Layer.build(Layer.fresh(Etcd.layerEtcdctl())).pipe(
          Effect.provide(filesOf(files)),
          withVariables(env),
          Effect.exit
        )
      assert.isTrue(Exit.isSuccess(yield* build(files)))
      const { "/etcd/key.pem": _, ...others } = files
      assert.include(
        configErrorOf(yield* build(others)).message,
        "ETCDCTL_KEY: cannot read \"/etcd/key.pem\" (there is no such file)"
      )
    }))

  it.effect("names the variable that it cannot use", () =>
    Effect.gen(function*() {
      const noPem = Path.resolve(import.meta.dirname, "../../package.json")
      const cases: ReadonlyArray<readonly [Record<string, string>, string]> = [
        [{ ETCDCTL_ENDPOINTS: "etcd" }, "cannot use host \"etcd\" of ETCDCTL_ENDPOINTS: it has no port"],
        [{ ETCDCTL_ENDPOINTS: " , " }, "ETCDCTL_ENDPOINTS is empty"],
        [{ ETCDCTL_ENDPOINTS: "http://a:1,https://b:1" }, "ETCDCTL_ENDPOINTS mixes https:// with plain addresses"],
        [{ ETCDCTL_CACERT: "/nowhere/ca.pem" }, "ETCDCTL_CACERT: cannot read \"/nowhere/ca.pem\""],
        [{ ETCDCTL_CACERT: noPem }, `ETCDCTL_CACERT: ${JSON.stringify(noPem)} is not a PEM file`],
        [
          { ETCDCTL_CERT: "/nowhere/c.pem", ETCDCTL_KEY: Tls.client.key },
          "ETCDCTL_CERT: cannot read \"/nowhere/c.pem\""
        ],
        [{ ETCDCTL_CERT: Tls.client.cert, ETCDCTL_KEY: "/nowhere/k" }, "ETCDCTL_KEY: cannot read \"/nowhere/k\""],
        [{ ETCDCTL_CERT: Tls.client.cert }, `ETCDCTL_CERT (${quote(Tls.client.cert)}) is set without ETCDCTL_KEY`],
        [{ ETCDCTL_KEY: Tls.client.key }, `ETCDCTL_KEY (${quote(Tls.client.key)}) is set without ETCDCTL_CERT`],
        [
          { ETCDCTL_CERT: Tls.client.cert, ETCDCTL_KEY: Tls.foreignClient.key },
          `ETCDCTL_KEY (${quote(Tls.foreignClient.key)}) cannot be used: `
        ],
        [
          { ETCDCTL_ENDPOINTS: "http://a:1", ETCDCTL_CACERT: Tls.ca },
          "ETCDCTL_CACERT is set, but host \"http://a:1\" of ETCDCTL_ENDPOINTS says http://. Write it with https://."
        ],
        [
          { ETCDCTL_ENDPOINTS: "http://a:1", ETCDCTL_CERT: Tls.client.cert, ETCDCTL_KEY: Tls.client.key },
          "ETCDCTL_CERT is set, but host \"http://a:1\""
        ],
        [
          { ETCDCTL_ENDPOINTS: "http://a:1", ETCDCTL_INSECURE_TRANSPORT: "false" },
          "ETCDCTL_INSECURE_TRANSPORT=false is set, but host \"http://a:1\" of ETCDCTL_ENDPOINTS says http://"
        ],
        [{ ETCDCTL_USER: "ann" }, "ETCDCTL_USER has no password; write it as name:password, or set ETCDCTL_PASSWORD"],
        [{ ETCDCTL_PASSWORD: "hunter2" }, "ETCDCTL_PASSWORD is set without ETCDCTL_USER. Set that to the user's name."],
        [
          { ETCDCTL_USER: "ann:hunter2", ETCDCTL_PASSWORD: "hunter2" },
          "ETCDCTL_USER has a password, and ETCDCTL_PASSWORD is set as well. Write the name alone into ETCDCTL_USER"
        ],
        [{ ETCDCTL_ENDPOINTS: "etcd", ETCDCTL_USER: "ann:hunter2" }, "ETCDCTL_ENDPOINTS"],
        [{ ETCDCTL_KEY: base64Key }, "ETCDCTL_KEY has the content of a PEM file. Write the file's path."],
        [
          { ETCDCTL_COMMAND_TIMEOUT: "5" },
          "ETCDCTL_COMMAND_TIMEOUT: \"5\" is not a duration; write it as 5s, 500ms or 1m30s"
        ],
        [
          { ETCDCTL_COMMAND_TIMEOUT: "0s" },
          "ETCDCTL_COMMAND_TIMEOUT must be between 1 millisecond and 24 days, got 0"
        ],
        [{ ETCDCTL_COMMAND_TIMEOUT: "1000h" }, "ETCDCTL_COMMAND_TIMEOUT must be between 1 millisecond and 24 days"]
      ]
      for (const [variables, says] of cases) {
        const exit = yield* Effect.exit(fromVariables(variables))
        assert.include(configErrorOf(exit).message, says, JSON.stringify(variables))
        for (const secret of ["hunter2", base64Key.slice(20, 60)]) assert.notInclude(shown(exit), secret)
      }
    }))

  it.effect("names a password that is given as the option that it is", () =>
    Effect.gen(function*() {
      const password = Redacted.make("hunter2")
      for (const variables of [{}, { ETCDCTL_PASSWORD: "hunter2" }]) {
        const exit = yield* Effect.exit(fromVariables(variables, { password }))
        assert.include(
          configErrorOf(exit).message,
          "`password` is set without ETCDCTL_USER. Set that to the user's name."
        )
      }
      const etcd = yield* fromVariables(
        { ETCDCTL_USER: "ann", ETCDCTL_ENDPOINTS: yield* GrpcServer.start({}) },
        { password: Effect.fail("the vault is sealed") }
      )
      const error = yield* Effect.flip(etcd.range(Etcd.get("a")))
      assert.strictEqual(error.description, "cannot read `password` for a token: the vault is sealed")
      const wrong: any = "hunter2"
      const exit = yield* Effect.exit(fromVariables({ ETCDCTL_USER: "ann" }, { password: wrong }))
      assert.include(String(defectOf(exit)), "password must be Redacted")
    }))

  it.effect("refuses by name what would verify nothing, or lead to another etcd", () =>
    Effect.gen(function*() {
      for (const yes of ["true", "TRUE", "True", "t", "1"]) {
        const exit = yield* Effect.exit(fromVariables({ ETCDCTL_INSECURE_SKIP_TLS_VERIFY: yes }))
        assert.include(
          configErrorOf(exit).message,
          "ETCDCTL_INSECURE_SKIP_TLS_VERIFY is true, but etcd's certificate is always verified. " +
            "Unset it, and set ETCDCTL_CACERT"
        )
      }
      const discovery = yield* Effect.exit(
        fromVariables({ ETCDCTL_DISCOVERY_SRV: "etcd.example", ETCDCTL_ENDPOINTS: "a:1" })
      )
      assert.include(
        configErrorOf(discovery).message,
        "ETCDCTL_DISCOVERY_SRV is set, but members are not looked up in DNS. Unset it, and set ETCDCTL_ENDPOINTS"
      )
      for (const variable of ["ETCDCTL_INSECURE_SKIP_TLS_VERIFY", "ETCDCTL_INSECURE_TRANSPORT"]) {
        const exit = yield* Effect.exit(fromVariables({ [variable]: "maybe" }))
        assert.include(configErrorOf(exit).message, `${variable}: "maybe" is neither true nor false`)
      }
    }))

  it.effect("takes etcdctl's defaults, and what is empty for absent", () =>
    Effect.gen(function*() {
      const { logged, logger } = logs()
      for (const https of [{}, { ETCDCTL_ENDPOINTS: "https://etcd.invalid:2379" }]) {
        yield* Effect.provide(
          fromVariables({
            ...https,
            ETCDCTL_CACERT: "",
            ETCDCTL_CERT: "",
            ETCDCTL_KEY: "",
            ETCDCTL_USER: "",
            ETCDCTL_PASSWORD: "",
            ETCDCTL_COMMAND_TIMEOUT: "",
            ETCDCTL_INSECURE_TRANSPORT: "true",
            ETCDCTL_INSECURE_SKIP_TLS_VERIFY: "F",
            ETCDCTL_INSECURE_DISCOVERY: "true",
            ETCDCTL_DISCOVERY_SRV: "",
            ETCDCTL_DIAL_TIMEOUT: "",
            ETCDCTL_API: "3",
            ETCDCTL_WRITE_OUT: "json"
          }),
          logger
        )
      }
      assert.deepStrictEqual(logged, [])
    }))

  it.effect("warns of what etcdctl reads and it does not", () =>
    Effect.gen(function*() {
      const { logged, logger } = logs()
      const build = fromVariables({ ETCDCTL_DIAL_TIMEOUT: "2s", ETCDCTL_KEEPALIVE_TIME: "9s", ETCDCTL_HEX: "true" })
      yield* Effect.provide(build, logger)
      assert.deepStrictEqual(logged, [
        "Etcd.layerEtcdctl does not read ETCDCTL_DIAL_TIMEOUT, ETCDCTL_KEEPALIVE_TIME, which etcdctl reads."
      ])
    }))
})
