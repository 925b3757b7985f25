"""The sender: the process that delivers what programs recorded.

One sender serves one spool (a destination and a set of credentials) and all programs that record for
it. The program waits for none of this, but shares its memory with it: what goes to a tracking server goes
without MLflow's code, whose import costs a hundred megabytes and a second. That is used where it alone knows:
databases, files of a trace, plugins, signatures.

    __main__            the process
    life                puts a sender together, serves, ends
    loop                one round: take in, deliver, pack
    foreground          the same sender for the command `send`

    intake, sources     rings and segments, and their records
    bursts              delivery steps aside for programs that record very fast
    assemble            traces put together from records
    tail_sampling       which of them are delivered
    packing             what cannot be delivered goes to disk

    server_delivery     a batch for a tracking server: info_requests, span_requests, span_files
    collector_delivery  a batch for a collector
    batches             how much one request carries
    trace_infos         a trace's info, as MLflow's client makes it: figures, previews, commits

    destinations        what a server or store can do: http, store, artifacts
    access              who a tracking server is, and how one signs in; mlflow_access: by MLflow's own code
    connection          the requests to it
    collectors          http/protobuf and gRPC
    transport           what the connections and answers of both have in common

    answers             which status of a tracking server means what (413: too large)
    exceptions          the ways in which a destination says no
    verdicts            whose fault that is
    availability        whether the server takes anything, and when it is asked again
    acknowledge         being done with a trace
    dead_letters        what nothing takes
    open_traces         records of traces that go on
    spool_writer        the files of both
    changes             what is to be done to traces that were not there yet
    status              status.json
"""
