FROM postgres:17
COPY . /src
RUN apt-get update && apt-get install -y --no-install-recommends build-essential postgresql-server-dev-17 && make -C /src with_llvm=no clean install && rm -rf /src /var/lib/apt/lists/*
CMD ["postgres", "-c", "shared_preload_libraries=distsys"]
