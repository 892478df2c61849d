import type {
  CallOptions,
  ChannelOptions,
  Client as Stub,
  ClientDuplexStream,
  ClientOptions,
  Metadata,
  ServiceError
} from "@grpc/grpc-js"
import type { Credentials } from "./credentials.ts"
import { notEnabled } from "./errors.ts"
import { castGrpcError, Channel, Etcd3, noop, requireMembers } from "./packages.ts"
import type { Method, Service } from "./rpc.ts"
import type { User } from "./secrets.ts"
import { Tokens } from "./tokens.ts"

type Pool = InstanceType<typeof Etcd3>["pool"]
type Host = Parameters<Pool["markFailed"]>[0]

interface Authenticating {
  readonly authenticate: (
    request: { readonly name: string; readonly password: string },
    options: CallOptions,
    callback: (error: ServiceError | null, response?: { readonly token: string }) => void
  ) => void
}

export interface Settings {
  /** `host:port` */
  readonly address: string
  readonly grpcOptions: ChannelOptions
  /** Undefined where the member is spoken to without TLS. */
  readonly credentials: Credentials | undefined
  readonly user: User | undefined
  /** For how many milliseconds a token is waited for. */
  readonly timeout: number
  /** Called when etcd says that it asks for no user. */
  readonly onNoUser: () => void
}

/** The client of npm etcd3, with a shorter way for the calls that a lock waits for. */
export class Client extends Etcd3 {
  readonly #tokens: Tokens
  // Otherwise the pool shuffles them again for each call.
  #hosts: Parameters<Pool["withConnection"]>[2]

  constructor({ address, credentials, grpcOptions, onNoUser, timeout, user }: Settings) {
    const secure: ClientOptions = credentials === undefined ? {} : {
      channelFactoryOverride: (address, _, options) => new Channel(address, credentials, options)
    }
    super({
      hosts: address,
      // The defaults repeat transactions that may have been applied, and break the circuit for calls that
      // have nothing to do with each other.
      faultHandling: { global: noop, host: () => noop },
      grpcOptions: { ...grpcOptions, ...secure as ChannelOptions }
    })
    requireMembers(this.pool)
    const host: Host = this.pool["hosts"][0]
    const fetchToken = (name: string, password: string) =>
      new Promise<string | undefined>((resolve, reject) => {
        const stub = host.getServiceClient("Auth") as unknown as Authenticating
        // Without a deadline a member that hangs would block the token, and with it all calls, for ever.
        stub.authenticate({ name, password }, { deadline: Date.now() + timeout }, (error, response) => {
          if (error === null) return resolve(response!.token)
          if (error.message.includes(notEnabled)) {
            onNoUser()
            return resolve(undefined)
          }
          this.pool.markFailed(host, error)
          reject(castGrpcError(error))
        })
      })
    this.#tokens = new Tokens(user, fetchToken)
    Object.assign(this.pool, { authenticator: this.#tokens })
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

  /** Lets all that follows wait for another token. */
  renewToken(): void {
    this.#tokens.renew()
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
