import type { CallOptions, Client as Stub, ClientDuplexStream, Metadata, ServiceError } from "@grpc/grpc-js"
import type { IOptions } from "etcd3"
import { castGrpcError, Etcd3 } from "./packages.ts"
import type { Method, Service } from "./rpc.ts"

type Pool = InstanceType<typeof Etcd3>["pool"]
type Host = Parameters<Pool["markFailed"]>[0]

interface Authenticating {
  readonly authenticate: (
    request: { readonly name: string; readonly password: string },
    options: CallOptions,
    callback: (error: ServiceError | null, response?: { readonly token: string }) => void
  ) => void
}

/** The client of npm etcd3, with a shorter way for the calls that a lock waits for. */
export class Client extends Etcd3 {
  // Otherwise the pool shuffles them again for each call.
  #hosts: Parameters<Pool["withConnection"]>[2]
  #isRenewingToken = false

  constructor(options: IOptions) {
    super(options)
    // By itself the client fetches each token over a connection of its own, which it never closes, and which gRPC holds
    // back for up to two minutes after a failure.
    const host: Host = this.pool["hosts"][0]
    const fetchToken = (_: string, name: string, password: string, options: CallOptions): Promise<string> =>
      new Promise((resolve, reject) => {
        const stub = host.getServiceClient("Auth") as unknown as Authenticating
        stub.authenticate({ name, password }, options, (error, response) => {
          if (error === null) return resolve(response!.token)
          this.pool.markFailed(host, error)
          reject(castGrpcError(error))
        })
      })
    this.pool["authenticator"]["getCredentialsFromHost"] = fetchToken
  }

  async call<Request, Response>(
    method: Method<Request, Response>,
    request: Request,
    options: CallOptions
  ): Promise<Response> {
    const message = method.serialize(request)
    const answer = await this.#connect(
      method.service,
      (stub, metadata) => start(stub, method.path, message, metadata, options)
    )
    return method.deserialize(answer)
  }

  open<Request, Response>(
    { deserialize, path, serialize, service }: Method<Request, Response>,
    options: CallOptions
  ): Promise<ClientDuplexStream<Request, Response>> {
    return this.#connect(service, (stub, metadata, host) => {
      const stream = stub.makeBidiStreamRequest(path, serialize, deserialize, metadata, options)
      stream.on("error", (error) => stream.writable && this.pool.markFailed(host, error))
      return stream
    })
  }

  /** Lets all that follows wait for another token, which is fetched once for all that found theirs refused by then. */
  renewToken(): void {
    if (this.#isRenewingToken) return
    this.#isRenewingToken = true
    // The client keeps a token for ever, unless a unary call of its own is refused for one that is unknown.
    const authenticator = this.pool["authenticator"]
    authenticator.invalidateMetadata()
    // The calls that wait for it report what goes wrong.
    authenticator.getMetadata().catch(() => {}).finally(() => {
      this.#isRenewingToken = false
    })
  }

  #connect<A>(
    service: Service,
    use: (stub: Stub, metadata: Metadata, host: Host) => A | Promise<A>
  ): Promise<A> {
    return this.pool.withConnection(service, ({ client, metadata, resource }) => {
      this.#hosts ??= forever(resource)
      return use(client as Stub, metadata, resource)
    }, this.#hosts)
  }
}

const forever = function*<A>(value: A): Generator<A, void> {
  while (true) yield value
}

// HTTP/2 streams survive two collections, and keep what was sent and received. Bytes keep less alive than messages.
const bytes = (bytes: Buffer) => bytes

const start = (
  stub: Stub,
  path: string,
  message: Buffer,
  metadata: Metadata,
  options: CallOptions
): Promise<Buffer> =>
  new Promise((resolve, reject) => {
    // The client captures a stack trace per call. That takes longer than encoding it, and always shows this line.
    const limit = Error.stackTraceLimit
    Error.stackTraceLimit = 0
    try {
      stub.makeUnaryRequest(path, bytes, bytes, message, metadata, options, (error, answer) => {
        if (error === null) resolve(answer!)
        else reject(castGrpcError(error))
      })
    } finally {
      Error.stackTraceLimit = limit
    }
  })
