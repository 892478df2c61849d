/** A server that speaks a part of etcd's interface. */
import { Server, ServerCredentials, type ServiceDefinition, type UntypedServiceImplementation } from "@grpc/grpc-js"
import { Effect, type Scope } from "effect"
import { definitionsFile, protobuf } from "../../src/internal/etcd3/packages.ts"

/** What it answers to unary calls, by the names of service and method. What is missing is not implemented. */
export interface Answers {
  readonly [service: string]: { readonly [method: string]: (request: any) => object }
}

/** Starts it on a free port, and returns its endpoint. */
export const start = (answers: Answers): Effect.Effect<string, never, Scope.Scope> =>
  Effect.gen(function*() {
    const server = yield* Effect.acquireRelease(
      Effect.sync(() => new Server()),
      (server) => Effect.sync(() => server.forceShutdown())
    )
    for (const [service, methods] of Object.entries(answers)) add(server, service, methods)
    const port = yield* Effect.callback<number>((resume) =>
      server.bindAsync("127.0.0.1:0", ServerCredentials.createInsecure(), (error, port) =>
        resume(error === null ? Effect.succeed(port) : Effect.die(error)))
    )
    return `127.0.0.1:${port}`
  })

const definitions = new protobuf.Root().loadSync(definitionsFile, { keepCase: true })

const add = (server: Server, service: string, methods: Answers[string]) => {
  const definition: Record<string, ServiceDefinition[string]> = {}
  const implementation: UntypedServiceImplementation = {}
  for (const [name, answer] of Object.entries(methods)) {
    const { resolvedRequestType, resolvedResponseType } = definitions.lookupService(`etcdserverpb.${service}`)
      .methods[name]!.resolve() as any
    definition[name] = {
      path: `/etcdserverpb.${service}/${name}`,
      requestStream: false,
      responseStream: false,
      requestSerialize: (request: object) => resolvedRequestType.encode(request).finish(),
      requestDeserialize: (bytes: Buffer) => resolvedRequestType.decode(bytes),
      responseSerialize: (response: object) => Buffer.from(resolvedResponseType.encode(response).finish()),
      responseDeserialize: (bytes: Buffer) => resolvedResponseType.decode(bytes)
    }
    implementation[name] = ({ request }: any, done: any) => {
      try {
        done(null, answer(request))
      } catch (error) {
        done(error)
      }
    }
  }
  server.addService(definition, implementation)
}
