import { Effect, type Scope } from "effect"
import * as Path from "node:path"
import type { ContainerRuntimeClient, StartedNetwork } from "testcontainers"
import { commandLine, EtcdNotFound, type Launcher, type Member, type Plan, StartFailed } from "./launcher.ts"

const image = "quay.io/coreos/etcd:v3.6.16"

/** etcd in containers of the Docker engine that testcontainers finds. */
export const fromDocker: Effect.Effect<Launcher, EtcdNotFound> = Effect.gen(function*() {
  const client = yield* Effect.tryPromise({
    try: () => testcontainers().then((_) => _.getContainerRuntimeClient()),
    catch: () => new EtcdNotFound({ message: "No Docker engine answers: start Docker, or set DOCKER_HOST" })
  }).pipe(
    Effect.timeoutOrElse({
      duration: "15 seconds",
      orElse: () => new EtcdNotFound({ message: "The Docker engine does not answer: restart it, or set DOCKER_HOST" })
    })
  )
  yield* Effect.tryPromise({
    try: () => testcontainers().then((_) => client.image.pull(_.ImageName.fromString(image))),
    catch: (error) =>
      new EtcdNotFound({ message: `Docker answers, but can't pull ${image}: ${(error as Error).message.trim()}` })
  }).pipe(
    Effect.timeoutOrElse({
      duration: "3 minutes",
      orElse: () => new EtcdNotFound({ message: `Docker answers, but has not pulled ${image} within 3 minutes` })
    })
  )
  return {
    what: `${image} in Docker`,
    isLocal: false,
    members: (plans) =>
      Effect.gen(function*() {
        const network = plans.length > 1 ? yield* privateNetwork : undefined
        return yield* Effect.forEach(plans, (plan) => member(client, plan, plans, network))
      })
  }
})

const member = Effect.fnUntraced(function*(
  client: ContainerRuntimeClient,
  plan: Plan,
  all: ReadonlyArray<Plan>,
  network: StartedNetwork | undefined
): Effect.fn.Return<Member, never, Scope.Scope> {
  const { EtcdContainer } = yield* Effect.promise(() => import("@testcontainers/etcd"))
  const { Wait } = yield* Effect.promise(testcontainers)
  const inside = (path: string) => `/files/${Path.basename(path)}`
  const args = commandLine(plan, all, {
    listen: "0.0.0.0",
    peerHost: (plan) => network === undefined ? "127.0.0.1" : plan.name,
    dataDir: "/etcd-data",
    file: inside
  })
  const { files, tls } = plan
  const copied = tls === undefined ? files : [tls.ca, tls.cert, tls.key, ...files]
  const published = [plan.ports.client, plan.ports.metrics]
  const name = `${plan.name}-${crypto.randomUUID()}`
  const definition = new EtcdContainer(image, plan.name)
    .withName(name)
    .withCommand(["etcd", ...args])
    .withExposedPorts(...published.map((port) => ({ container: port, host: port })))
    .withCopyFilesToContainer(copied.map((source) => ({ source, target: inside(source) })))
    .withWaitStrategy(Wait.forLogMessage(/./))
  if (network !== undefined) {
    definition.withNetwork(network).withNetworkAliases(plan.name)
  }

  // by its name, which it has also when its start failed
  let created = false
  const call = <A>(f: (container: Container) => Promise<A>): Effect.Effect<A> =>
    Effect.promise(() => f(client.container.getById(name)))
  yield* Effect.addFinalizer(() =>
    created ? call((container) => container.remove({ force: true, v: true })) : Effect.void
  )
  const printed = Effect.map(call((container) => container.logs({ stdout: true, stderr: true, tail: 50 })), text)
  const failed = (what: string) => Effect.flatMap(printed, (text) => new StartFailed({ message: `${what}\n${text}` }))
  return {
    host: client.info.containerRuntime.host.replace("localhost", "127.0.0.1"),
    start: Effect.uninterruptible(
      Effect.suspend(() => {
        if (created) return call((container) => container.start())
        created = true
        return Effect.catch(
          Effect.tryPromise({ try: () => definition.start(), catch: (error) => (error as Error).message }),
          (message) => failed(`The container did not start: ${message}`)
        )
      })
    ),
    died: Effect.andThen(call((container) => container.wait()), failed("etcd ended at its start")),
    pause: call((container) => container.pause()),
    resume: call((container) => container.unpause()),
    kill: call((container) => container.kill())
  }
})

type Container = ReturnType<ContainerRuntimeClient["container"]["getById"]>

// Docker sends what a container prints in frames: a header of eight bytes that ends in the length, and the bytes.
const text = (frames: Buffer): string => {
  let text = ""
  for (let at = 0; at < frames.length; at += 8 + frames.readUInt32BE(at + 4)) {
    text += frames.toString("utf8", at + 8, at + 8 + frames.readUInt32BE(at + 4))
  }
  return text
}

// loaded only when nothing else has found an etcd: it is slow to load
const testcontainers = () => import("testcontainers")

const privateNetwork = Effect.acquireRelease(
  Effect.promise(() => testcontainers().then((_) => new _.Network().start())),
  (network) => Effect.promise(() => network.stop())
)
