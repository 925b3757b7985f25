"""The sender: the process that delivers what programs recorded.

One sender serves one spool (a destination and a set of credentials) and all programs that record for
it. The program waits for none of this, so MLflow's own code is used wherever it knows better.

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
    trace_infos         a trace's info, as MLflow's client makes it

    destinations        what a server or store can do: http, store, artifacts
    collectors          http/protobuf and gRPC
    transport           what the answers of both have in common

    answers             which status of a tracking server means what (413: too large)
    exceptions          the ways in which a destination says no
    verdicts            whose fault that is
    availability        whether the server takes anything, and when it is asked again
    acknowledge         being done with a trace
    dead_letters        what nothing takes
    open_traces         records of traces that go on
    spool_writer        the files of both
    status              status.json
"""
